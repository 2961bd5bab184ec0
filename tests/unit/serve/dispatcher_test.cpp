// SPDX-License-Identifier: Apache-2.0
#include "serve/dispatcher.h"

#include <atomic>
#include <catch2/catch.hpp>
#include <future>
#include <stdexcept>
#include <thread>
#include <vector>

#include "../artifact/tiny_model.h"
#include "../text/letters.h"
#include "serve/api_error.h"

using namespace fettle;
using namespace fettle::serve;
using namespace std::chrono_literals;
using fettle::testing::TinyModel;

namespace {

decode::Request request_of(std::int32_t first, std::int64_t tokens) {
  return {
      .prompt = {first, 3},
      .max_new_tokens = tokens,
      .sampling = {.temperature = 1.0, .seed = 5}};
}

// A dispatcher on a tiny model, whose thread is the test's own.
class RunningModel {
 public:
  explicit RunningModel(std::int64_t most = 64)
      : dispatcher(engine_, most), thread_([this] {
          dispatcher.run([this] { return ends_.load(); }, 60s);
        }) {}
  ~RunningModel() { end(); }

  void end() {
    ends_ = true;
    if (thread_.joinable()) thread_.join();
  }

 private:
  TinyModel tiny_{{.family = "qwen3_moe"}};
  model::CausalLm model_{tiny_.path(), {.resident_bytes = 1 << 24}};
  text::Tokenizer tokenizer_ = testing::letters();
  decode::Engine engine_{model_, tokenizer_, {.parallel = 3}};
  std::atomic<bool> ends_ = false;

 public:
  Dispatcher dispatcher;

 private:
  std::thread thread_;
};

// The completions of a job's choices, and its text as it came.
struct Result {
  std::vector<decode::Completion> completions;
  std::vector<std::string> texts;
};

// Called on several threads at once, where Catch's macros may not be.
Result result_of(Job& job, std::size_t choices) {
  Result result{
      std::vector<decode::Completion>(choices),
      std::vector<std::string>(choices)};
  for (std::size_t done = 0; done < choices;) {
    auto piece = job.next(60s);
    if (!piece) throw std::runtime_error("nothing came in a minute");
    if (piece->failure != "") throw std::runtime_error(piece->failure);
    result.texts[piece->choice] += piece->text;
    if (!piece->completion) continue;
    result.completions[piece->choice] = std::move(*piece->completion);
    ++done;
  }
  return result;
}

}  // namespace

TEST_CASE("clients of many threads each get their own answer") {
  RunningModel served;
  const auto alone = [&](std::int32_t first) {
    const auto job = served.dispatcher.submit({request_of(first, 12)});
    return result_of(*job, 1).completions[0].ids;
  };
  std::vector<std::vector<std::int32_t>> expected;
  for (std::int32_t i = 0; i < 8; ++i) expected.push_back(alone(i));
  std::vector<std::future<Result>> clients;
  for (std::int32_t i = 0; i < 8; ++i) {
    clients.push_back(std::async(std::launch::async, [&, i] {
      const auto job = served.dispatcher.submit(
          {request_of(i, 12), request_of((i + 1) % 8, 12)});
      return result_of(*job, 2);
    }));
  }
  for (std::size_t i = 0; i < 8; ++i) {
    const Result got = clients[i].get();
    CHECK(got.completions[0].ids == expected[i]);
    CHECK(got.completions[1].ids == expected[(i + 1) % 8]);
    CHECK(got.texts[0] == got.completions[0].text);
  }
  const ServedCounts counts = served.dispatcher.counts();
  CHECK(counts.requests == 16);
  CHECK(counts.new_tokens == 12 * 24);
  CHECK(counts.prompt_tokens == 2 * 24);
  CHECK(counts.choices == 0);
}

TEST_CASE("beyond its queue a server asks to try again") {
  RunningModel served(2);
  const auto long_one =
      served.dispatcher.submit({request_of(1, 60), request_of(2, 60)});
  try {
    served.dispatcher.submit({request_of(3, 1)});
    FAIL("taken in");
  } catch (const ApiError& error) {
    CHECK(error.refusal().status == 429);
    CHECK(error.refusal().retry_after > 0);
  }
  result_of(*long_one, 2);
  CHECK(served.dispatcher.counts().refused == 1);
  result_of(*served.dispatcher.submit({request_of(3, 1)}), 1);
}

TEST_CASE("what nobody waits for is not decoded") {
  RunningModel served;
  const auto job = served.dispatcher.submit({request_of(1, 100'000)});
  job->abandon();
  while (served.dispatcher.counts().choices > 0) std::this_thread::yield();
  CHECK(served.dispatcher.counts().abandoned == 1);
  CHECK(served.dispatcher.counts().new_tokens < 100'000);
}

TEST_CASE("a server that ends lets running answers end, and takes no more") {
  RunningModel served;
  const auto job = served.dispatcher.submit({request_of(1, 40)});
  served.end();
  CHECK(result_of(*job, 1).completions[0].ids.size() == 40);
  try {
    served.dispatcher.submit({request_of(1, 1)});
    FAIL("taken in");
  } catch (const ApiError& error) {
    CHECK(error.refusal().status == 503);
  }
}

TEST_CASE("a request that the model can't take fails alone") {
  RunningModel served;
  const auto job = served.dispatcher.submit({request_of(1, 1'000'000'000)});
  const auto piece = job->next(60s);
  REQUIRE(piece);
  CHECK(piece->failure != "");
  result_of(*served.dispatcher.submit({request_of(1, 2)}), 1);
}
