// SPDX-License-Identifier: Apache-2.0
#include "trim/kept_check.h"

#include <catch2/catch.hpp>
#include <functional>

#include "core/error.h"
#include "scores.h"

namespace fettle::trim {
namespace {

using namespace testing;
using Catch::Matchers::Contains;

// Two layers of four experts with 24 neurons each.
model::ModelConfig kept_config() {
  fettle::testing::TinyModelOptions options;
  options.changes = {{"moe_intermediate_size", 24}};
  return fettle::testing::tiny_config(options);
}

// Layer 1 is worth the more, and experts differ.
artifact::ScoreFile kept_scores() {
  std::vector<std::vector<float>> values(2);
  for (int l = 0; l < 2; ++l) {
    for (int i = 0; i < 96; ++i) {
      values[l].push_back(
          static_cast<float>(1 + 100 * l) + 0.01f * static_cast<float>(i));
    }
  }
  return neuron_scores(kept_config(), values);
}

void plan(const TrimOptions& options) {
  const auto config = kept_config();
  require_neurons(plan_trim(kept_scores(), config, options), config, options);
}

TEST_CASE("A cut that leaves a layer nothing is refused, with what to do") {
  struct Case {
    std::function<void(TrimOptions&)> change;
    std::string message;
  };
  const auto sample = GENERATE(values<Case>({
      {[](TrimOptions& o) { o.round = 16, o.widths = WidthRule::kUniform; },
       "keep 0.3 leaves the model none of its 192 neurons; widths go by steps "
       "of --round 16: use a smaller one (such as 4), a larger --keep, or "
       "--min-width 16"},
      {[](TrimOptions& o) { o.round = 16, o.scope = Scope::kExpert; },
       "none of its 192 neurons; widths go by steps of --round 16"},
      {[](TrimOptions& o) {
         o.round = 16, o.scope = Scope::kLayer, o.widths = WidthRule::kPerLayer;
       },
       "none of its 192 neurons"},
      {[](TrimOptions& o) {
         o.keep = 0.05, o.round = 8, o.widths = WidthRule::kUniform;
       },
       "keep 0.05 leaves the model none"},
      {[](TrimOptions& o) { o.keep = 1e-7; },
       "keep 1e-07 leaves the model none of its 192 neurons; use a larger "
       "--keep, --min-width 1, or --scope layer"},
      {[](TrimOptions& o) { o.keep = 0.5; },
       "keep 0.5 leaves layer 0 none of the layer's 96 neurons; use a larger"},
      {[](TrimOptions& o) { o.max_width = 8, o.round = 16; },
       "--max-width 8 is less than one step of --round 16"},
      {[](TrimOptions& o) {
         o.keep.reset();
         o.budget = 1200;
         o.bytes = {.fixed = 1000, .per_neuron = 10, .per_expert = 1};
         o.round = 16, o.widths = WidthRule::kUniform;
       },
       "a budget of 1.17 KiB leaves the model none of its 192 neurons; widths "
       "go by steps of --round 16: use a smaller one, a larger --budget"},
      {[](TrimOptions& o) {
         o.unit = TrimUnit::kMixed, o.widths = WidthRule::kUniform;
         o.bytes = {.fixed = 1000, .per_neuron = 10, .per_expert = 1};
         o.exchange_rate = 10, o.keep = 0.1, o.round = 16;
       },
       "leaves the model none"},
  }));
  TrimOptions options;
  options.keep = 0.3;
  sample.change(options);
  REQUIRE_THROWS_AS(plan(options), UserError);
  REQUIRE_THROWS_WITH(plan(options), Contains(sample.message));
}

TEST_CASE("A cut that leaves every layer something passes") {
  TrimOptions options;
  options.keep = 0.3;
  options.round = 16;
  options.widths = WidthRule::kUniform;
  SECTION("a smaller step, as the refusal says") { options.round = 4; }
  SECTION("a floor of one step") {
    options.min_width = 16;
    options.keep = 0.67;
  }
  SECTION("layer by layer") {
    options.widths = WidthRule::kFree;
    options.scope = Scope::kLayer;
  }
  REQUIRE_NOTHROW(plan(options));
}

TEST_CASE("A share other than the one asked for is told") {
  const auto config = kept_config();
  const auto note = [&](const TrimOptions& options) {
    return share_note(
        plan_trim(kept_scores(), config, options), config, options);
  };
  TrimOptions options;
  options.keep = 0.5;
  REQUIRE(note(options).empty());
  options.max_width = 10;
  REQUIRE(
      note(options) ==
      "keeps 0.417 of the neurons, the nearest to 0.5 with --max-width 10");
  options.max_width = 0;
  options.round = 16;
  options.widths = WidthRule::kUniform;
  REQUIRE(
      note(options) ==
      "keeps 0.667 of the neurons, the nearest to 0.5 with --round 16 and "
      "experts of equal widths");
}

}  // namespace
}  // namespace fettle::trim
