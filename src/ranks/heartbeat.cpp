// SPDX-License-Identifier: Apache-2.0
#include "ranks/heartbeat.h"

#include <fmt/format.h>

#include <charconv>
#include <utility>

#include "ranks/group.h"

namespace fettle::ranks {
namespace {

constexpr const char* kEnd = "end";

std::string beat_key(std::int64_t rank) { return fmt::format("beat/{}", rank); }

// Written by a rank that knows of the end.
std::string known_key(std::int64_t rank) {
  return fmt::format("known/{}", rank);
}

double seconds(std::chrono::milliseconds time) {
  return std::chrono::duration<double>(time).count();
}

}  // namespace

Heartbeat::Heartbeat(std::unique_ptr<Board> board, HeartbeatOptions options)
    : options_(std::move(options)),
      board_(std::move(board)),
      callers_(board_->another()),
      seen_(options_.size, {{}, Clock::now()}),
      speaker_([this] { speak(); }),
      watcher_([this] { watch(); }) {}

Heartbeat::~Heartbeat() {
  stop();
  speaker_.join();
  watcher_.join();
}

void Heartbeat::begin(std::string work) {
  const std::scoped_lock lock(mutex_);
  work_ = std::move(work);
}

void Heartbeat::stop() {
  const std::scoped_lock lock(mutex_);
  stopping_ = true;
  wake_.notify_all();
}

// Written and read without the lock, which the judging thread needs even while
// the board does not answer.
void Heartbeat::speak() {
  std::uint64_t beats = 0;
  const auto ended = [&] {
    std::unique_lock lock(mutex_);
    return wake_.wait_for(lock, options_.beat, [&] { return stopping_; });
  };
  try {
    do {
      board_->set(beat_key(options_.rank), std::to_string(++beats));
      round();
    } while (!ended());
  } catch (const std::exception&) {
    const std::scoped_lock lock(mutex_);
    board_lost_ = true;
  }
}

void Heartbeat::round() {
  std::vector<std::string> beats(options_.size);
  for (std::int64_t r = 0; r < options_.size; ++r) {
    if (r != options_.rank) beats[r] = board_->get(beat_key(r)).value_or("");
  }
  std::optional<End> end;
  if (const auto text = board_->get(kEnd)) {
    End& found = end.emplace();
    const std::size_t space = text->find(' ');
    std::from_chars(text->data(), text->data() + space, found.rank);
    found.reason = text->substr(space + 1);
  }
  const std::scoped_lock lock(mutex_);
  last_round_ = Clock::now();
  if (end) end_ = std::move(end);
  for (std::int64_t r = 0; r < options_.size; ++r) {
    if (beats[r] != seen_[r].beat) seen_[r] = {beats[r], last_round_};
  }
}

std::optional<Heartbeat::End> Heartbeat::lost(
    std::chrono::milliseconds silence) {
  const std::scoped_lock lock(mutex_);
  if (stopping_) return std::nullopt;
  if (end_) return end_;
  const auto now = Clock::now();
  if (board_lost_) {
    return End{0, "ended or can't be reached: the store that it keeps is gone"};
  }
  const std::string unheard = fmt::format(
      "has not been heard of for {:.0f} s: it was killed, is frozen, or its "
      "network is gone",
      seconds(options_.silence));
  if (now - last_round_ > silence) {
    board_lost_ = true;  // a call to it would wait for ever
    return End{0, unheard};
  }
  std::optional<End> found;
  auto oldest = now - silence;
  for (std::int64_t r = 0; r < options_.size; ++r) {
    if (r == options_.rank || seen_[r].when >= oldest) continue;
    oldest = seen_[r].when;
    found = End{r, unheard};
  }
  return found;
}

// What the board says of the end afterwards. Where the board ends with this
// process, the others get time to read it.
Heartbeat::End Heartbeat::post(const End& end) {
  End first = end;
  {
    const std::scoped_lock lock(mutex_);
    if (end_) first = *end_;
    if (board_lost_) return first;
  }
  try {
    callers_->set_first(kEnd, fmt::format("{} {}", first.rank, first.reason));
    callers_->set(known_key(options_.rank), "");
    if (options_.serves) linger(first.rank);
  } catch (const std::exception&) {
    // Then the others find out by themselves.
  }
  return first;
}

void Heartbeat::linger(std::int64_t lost) {
  const auto until = Clock::now() + options_.lingering;
  for (std::int64_t r = 0; r < options_.size; ++r) {
    while (r != options_.rank && r != lost && Clock::now() < until &&
           !callers_->get(known_key(r))) {
      std::this_thread::sleep_for(options_.beat / 16);
    }
  }
}

std::string Heartbeat::line(const End& end) {
  const std::scoped_lock lock(mutex_);
  return fmt::format(
      "[ranks] rank {} {} (rank {} was at {}); start all ranks again, with "
      "--resume where the command has it",
      end.rank,
      end.reason,
      options_.rank,
      work_);
}

void Heartbeat::watch() {
  while (true) {
    {
      std::unique_lock lock(mutex_);
      wake_.wait_for(lock, options_.beat, [&] { return stopping_; });
      if (stopping_) return;
    }
    const auto end = lost(options_.silence);
    if (!end || claimed_.exchange(true)) continue;
    const std::string text = line(post(*end));
    options_.on_loss(text);
    return;
  }
}

void Heartbeat::fail(std::string_view reason) noexcept {
  try {
    if (claimed_.exchange(true)) return;
    post({options_.rank, fmt::format("ended: {}", reason)});
  } catch (...) {
    // The others then find out by themselves.
  }
}

std::string Heartbeat::explain(const std::string& error) {
  if (claimed_.exchange(true)) {
    while (true) std::this_thread::sleep_for(std::chrono::hours(1));
  }
  // A rank that died has stopped beating, and one that ended has said why.
  const auto silence = options_.beat * 6;
  const auto until = Clock::now() + 2 * silence;
  while (Clock::now() < until) {
    if (auto end = lost(silence)) {
      if (end->reason.starts_with("has not")) {
        end->reason = "ended: it was killed, or its network is gone";
      }
      return line(post(*end));
    }
    std::this_thread::sleep_for(options_.beat / 4);
  }
  return line(post(
      {options_.rank,
       fmt::format("lost the connection to another: {}", error)}));
}

}  // namespace fettle::ranks
