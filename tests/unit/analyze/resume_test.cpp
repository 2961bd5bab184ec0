// SPDX-License-Identifier: Apache-2.0
#include <catch2/catch.hpp>
#include <fstream>
#include <stdexcept>

#include "core/error.h"
#include "core/progress.h"
#include "runs.h"

namespace fettle::analyze {
namespace {

using Catch::Matchers::Contains;
using fettle::testing::random_data;
using fettle::testing::TinyModel;
using fettle::testing::TinyModelOptions;
using testing::kAll;
using testing::require_equal;
using testing::run;

// Ends a run, as a kill would, when a chunk begins.
class StopAtChunk : public SilentReporter {
 public:
  explicit StopAtChunk(std::string chunk) : chunk_(std::move(chunk)) {}
  void note(std::string_view text) override {
    if (text.starts_with(chunk_)) throw std::runtime_error("stopped");
    notes += std::string(text) + "\n";
  }
  std::string notes;

 private:
  std::string chunk_;
};

// A run killed when its fourth of five chunks began, to be resumed.
struct KilledRun {
  KilledRun() {
    options.state_folder = state.path();
    StopAtChunk stop("chunk 4 of 5");
    options.sweep.reporter = &stop;
    REQUIRE_THROWS_WITH(run(tiny, data, options), "stopped");
    options.resume = true;
    options.sweep.reporter = &watch;
  }

  TinyModel tiny;
  fettle::testing::TemporaryFolder state;
  std::vector<model::Sequence> data = random_data(9, 9, 11);
  AnalyzeOptions options{
      .scores = kAll,
      .micro_batch_tokens = 20,
      .batch_sequences = 2,
      .chunk_tokens = 20,
      .run = {{"data", {"a.jsonl"}}}};
  StopAtChunk watch{"none"};
};

TEST_CASE_METHOD(KilledRun, "A run that was killed goes on to the same bits") {
  AnalyzeOptions unbroken = options;
  unbroken.resume = false;
  unbroken.state_folder.clear();
  unbroken.sweep.reporter = nullptr;
  const auto whole = run(tiny, data, unbroken);
  SECTION("with the same options") {
    // What memory allows now changes neither chunks nor micro-batches.
    options.micro_batch_tokens = GENERATE(20, 1000);
    const auto resumed = run(tiny, data, options);
    REQUIRE_THAT(
        watch.notes,
        Contains("resuming after chunk 3") && Contains("chunk 4 of 5") &&
            !Contains("chunk 3 of 5"));
    require_equal(whole, resumed, 0);
    for (std::size_t l = 0; l < 2; ++l) {
      REQUIRE(
          whole.layers[l].router_entropy == resumed.layers[l].router_entropy);
      for (const auto& [name, sum] : whole.layers[l].sums) {
        CAPTURE(name);
        REQUIRE(sum.values.equal(resumed.layers[l].sums.at(name).values));
      }
    }
    REQUIRE(whole.run["loss_tokens"] == resumed.run["loss_tokens"]);
  }
  SECTION("with less memory, which is said") {
    options.micro_batch_tokens = 9;
    require_equal(whole, run(tiny, data, options), 1e-4);
    REQUIRE_THAT(watch.notes, Contains("micro-batches of 9 tokens instead"));
  }
}

TEST_CASE_METHOD(KilledRun, "A resume of something else is refused by name") {
  std::string named;
  SECTION("options") {
    options.batch_sequences = 1;
    named = "options/batch_sequences";
  }
  SECTION("chunks") {
    options.chunk_tokens = 40;
    named = "options/chunk_tokens";
  }
  SECTION("scores") {
    options.scores.pop_back();
    named = "options/scores";
  }
  SECTION("files") {
    options.run["data"] = {"b.jsonl"};
    named = "options/data/0: expected \"a.jsonl\"";
  }
  SECTION("data in them") {
    data[8].ids[0] ^= 1;
    named = "sequences";
  }
  REQUIRE_THROWS_WITH(run(tiny, data, options), Contains(named));
}

TEST_CASE_METHOD(KilledRun, "A resume with another model is refused") {
  TinyModelOptions changed;
  changed.seed = 2;
  const TinyModel another(changed);
  REQUIRE_THROWS_WITH(run(another, data, options), Contains("] model: "));
}

TEST_CASE("A resumed run keeps the chunks that the budget gave it at first") {
  const TinyModel tiny;
  const fettle::testing::TemporaryFolder state;
  const auto data = random_data(9, 9, 11);
  AnalyzeOptions options{
      .scores = {"mask_fisher"},
      .chunk_tokens = 27,
      .chunks_by_budget = true,
      .state_folder = state.path()};
  StopAtChunk stop("chunk 3 of 3");
  options.sweep.reporter = &stop;
  REQUIRE_THROWS_WITH(run(tiny, data, options), "stopped");
  options.resume = true;
  options.chunk_tokens = 0;
  options.sweep.reporter = nullptr;
  const auto resumed = run(tiny, data, options);
  options.chunk_tokens = 27;
  options.resume = false;
  require_equal(run(tiny, data, options), resumed, 0);
}

TEST_CASE("A run that keeps moments is resumed in the same bits") {
  const TinyModel tiny;
  const fettle::testing::TemporaryFolder state;
  const auto data = random_data(9, 9, 11);
  AnalyzeOptions options{
      .scores = {"obs"},
      .chunk_tokens = 27,
      .keep_moments = true,
      .state_folder = state.path()};
  StopAtChunk stop("chunk 3 of 3");
  options.sweep.reporter = &stop;
  REQUIRE_THROWS_WITH(run(tiny, data, options), "stopped");
  options.resume = true;
  options.sweep.reporter = nullptr;
  const auto resumed = run(tiny, data, options);
  options.resume = false;
  require_equal(run(tiny, data, options), resumed, 0);
}

TEST_CASE("A resume without a saved state starts at the beginning") {
  const TinyModel tiny;
  const fettle::testing::TemporaryFolder state;
  const auto [score, message] = GENERATE(table<std::string, std::string>(
      {{"wanda", "starting from the first chunk"},
       {"obs", "without --keep-moments is one chunk and saves no state"}}));
  AnalyzeOptions options{.scores = {score}};
  const auto data = random_data(2, 9, 11);
  const auto whole = run(tiny, data, options);
  StopAtChunk watch("none");
  options.sweep.reporter = &watch;
  options.state_folder = state.path();
  options.resume = true;
  require_equal(whole, run(tiny, data, options), 0);
  REQUIRE_THAT(watch.notes, Contains(message));
}

TEST_CASE_METHOD(KilledRun, "A position of another kind is refused by name") {
  const auto file = state.path() / "state-00000003/state.json";
  const Json sound = read_json(file, "test");
  const std::string key = GENERATE("tokens", "loss_tokens", "chunk_tokens");
  Json json = sound;
  json["cursor"][key] = Json::object();
  std::ofstream(file) << json;
  REQUIRE_THROWS_WITH(
      run(tiny, data, options), Contains("'" + key + "' must be an integer"));
}

}  // namespace
}  // namespace fettle::analyze
