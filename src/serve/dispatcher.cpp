// SPDX-License-Identifier: Apache-2.0
#include "serve/dispatcher.h"

#include <fmt/format.h>

#include <utility>

#include "core/error.h"
#include "core/stopwatch.h"
#include "serve/api_error.h"

namespace fettle::serve {
namespace {

using namespace std::chrono_literals;

constexpr int kRetryAfter = 2;  // seconds
// How often an idle server asks whether it is to end.
constexpr auto kIdle = 100ms;

}  // namespace

Dispatcher::Dispatcher(decode::Engine& engine, std::int64_t most)
    : engine_(engine), most_(most) {}

std::shared_ptr<Job> Dispatcher::submit(std::vector<decode::Request> choices) {
  auto job = std::make_shared<Job>();
  {
    const std::lock_guard lock(mutex_);
    if (ending_) {
      throw ApiError(
          {.status = 503,
           .message = "The server is ending",
           .retry_after = kRetryAfter});
    }
    const std::int64_t count = std::ssize(choices);
    if (counts_.choices + count > most_) {
      ++counts_.refused;
      throw ApiError(
          {.status = 429,
           .message = fmt::format(
               "{} answers are decoded or wait, and there is room for {}; try "
               "again",
               counts_.choices,
               most_),
           .code = "queue_full",
           .retry_after = kRetryAfter});
    }
    ++counts_.requests;
    counts_.choices += count;
    arrivals_.push_back({job, std::move(choices)});
  }
  arrived_.notify_one();
  return job;
}

void Dispatcher::take_in() {
  std::deque<Arrival> arrivals;
  {
    const std::lock_guard lock(mutex_);
    arrivals.swap(arrivals_);
  }
  for (Arrival& arrival : arrivals) {
    for (std::size_t i = 0; i < arrival.choices.size(); ++i) {
      begin(arrival.job, i, std::move(arrival.choices[i]));
    }
  }
}

void Dispatcher::begin(
    const std::shared_ptr<Job>& job,
    std::size_t choice,
    decode::Request request) {
  const std::int64_t prompt = std::ssize(request.prompt);
  decode::Listener listener{
      .on_text =
          [job, choice](const decode::NewText& made) {
            job->put(
                {.choice = choice,
                 .text = made.text,
                 .chances = {made.chances.begin(), made.chances.end()}});
          },
      .on_finish =
          [this, job, choice, prompt](decode::Completion made) {
            {
              const std::lock_guard lock(mutex_);
              counts_.prompt_tokens += prompt;
              counts_.known_tokens += made.known_tokens;
              counts_.new_tokens += std::ssize(made.ids);
            }
            end(job, {.choice = choice, .completion = std::move(made)});
          },
      .is_gone = [job] { return job->abandoned(); }};
  try {
    engine_.submit(std::move(request), std::move(listener));
  } catch (const UserError& error) {
    end(job, {.choice = choice, .failure = error.what()});
  }
}

void Dispatcher::end(const std::shared_ptr<Job>& job, Piece piece) {
  {
    const std::lock_guard lock(mutex_);
    --counts_.choices;
    counts_.abandoned += job->abandoned() ? 1 : 0;
  }
  if (!failure_.empty()) piece.failure = failure_;
  job->put(std::move(piece));
}

void Dispatcher::run(
    const std::function<bool()>& stop, std::chrono::milliseconds grace) {
  std::optional<Stopwatch> ending;
  while (true) {
    take_in();
    bool busy = false;
    try {
      busy = engine_.step();
    } catch (const UserError& error) {
      // Weights that give no numbers: all that decode ask the same of them.
      failure_ = error.what();
      engine_.cancel();
      failure_.clear();
    }
    if (!ending && stop()) {
      const std::lock_guard lock(mutex_);
      ending_ = true;
      ending.emplace();
    }
    std::unique_lock lock(mutex_);
    if (ending &&
        ((!busy && arrivals_.empty()) ||
         ending->seconds() * 1e3 > static_cast<double>(grace.count()))) {
      break;
    }
    if (!busy && arrivals_.empty()) {
      arrived_.wait_for(lock, kIdle, [this] { return !arrivals_.empty(); });
    }
  }
  take_in();
  engine_.cancel();
}

ServedCounts Dispatcher::counts() const {
  const std::lock_guard lock(mutex_);
  return counts_;
}

}  // namespace fettle::serve
