// SPDX-License-Identifier: Apache-2.0
#include <algorithm>
#include <catch2/catch.hpp>
#include <functional>

#include "core/rng.h"
#include "scores.h"
#include "trim/plan.h"

namespace fettle::trim {
namespace {

using namespace testing;
using Catch::Matchers::Contains;
using Rows = std::vector<std::vector<std::int64_t>>;

// Two layers of two experts with four neurons each.
model::ModelConfig small_config() {
  fettle::testing::TinyModelOptions options;
  options.changes = {{"num_experts", 2}, {"moe_intermediate_size", 4}};
  return fettle::testing::tiny_config(options);
}

artifact::ScoreFile small_scores() {
  return neuron_scores(
      small_config(),
      {{20, 1, 2, 1, /**/ 20, 15, 1, 1}, {9, 8, 1, 1, /**/ 1, 9, 1, 8}});
}

TrimOptions equal_widths(WidthRule widths, double keep) {
  TrimOptions result;
  result.widths = widths;
  result.keep = keep;
  return result;
}

TEST_CASE("Layers of one width keep the best sum") {
  const auto widths = [](WidthRule kind, double keep) {
    return kept_widths(
        plan_trim(small_scores(), small_config(), equal_widths(kind, keep)));
  };
  // Ranks of layer 0 are worth 20, 8.5, 1, 1; of layer 1: 9, 8, 1, 1.
  REQUIRE(widths(WidthRule::kPerLayer, 0.125) == Rows{{1, 1}, {0, 0}});
  REQUIRE(widths(WidthRule::kPerLayer, 0.25) == Rows{{1, 1}, {1, 1}});
  REQUIRE(widths(WidthRule::kPerLayer, 0.375) == Rows{{2, 2}, {1, 1}});
  REQUIRE(widths(WidthRule::kPerLayer, 0.5) == Rows{{2, 2}, {2, 2}});
  // One width for all: the nearest to the share.
  REQUIRE(widths(WidthRule::kUniform, 0.125) == Rows{{0, 0}, {0, 0}});
  REQUIRE(widths(WidthRule::kUniform, 0.2) == Rows{{1, 1}, {1, 1}});
  REQUIRE(widths(WidthRule::kUniform, 0.75) == Rows{{3, 3}, {3, 3}});
  // Free widths would differ.
  REQUIRE(widths(WidthRule::kFree, 0.375) == Rows{{1, 2}, {2, 1}});
}

TEST_CASE("Each expert of one width keeps its own best neurons") {
  const auto plan = plan_trim(
      small_scores(), small_config(), equal_widths(WidthRule::kUniform, 0.5));
  using Indices = std::vector<std::int64_t>;
  REQUIRE(plan.layers[0].experts[0].neurons == Indices{0, 2});
  REQUIRE(plan.layers[0].experts[1].neurons == Indices{0, 1});
  REQUIRE(plan.layers[1].experts[1].neurons == Indices{1, 3});
  REQUIRE(plan.options["widths"] == "uniform");
}

TEST_CASE("Equal widths in every layer's own share") {
  TrimOptions options = equal_widths(WidthRule::kPerLayer, 0.25);
  options.scope = Scope::kLayer;
  REQUIRE(
      kept_widths(plan_trim(small_scores(), small_config(), options)) ==
      Rows{{1, 1}, {1, 1}});
}

// Against every choice of widths.
TEST_CASE("Widths by layer are the best that fit, for random scores") {
  fettle::testing::TinyModelOptions ragged;
  ragged.widths = {{6, 5, 0, 3}, {6, 6, 1, 4}};
  const auto config = fettle::testing::tiny_config(ragged);
  Rng rng(4);
  for (int round = 0; round < 100; ++round) {
    std::vector<std::vector<float>> values(2);
    for (std::size_t l = 0; l < 2; ++l) {
      values[l].resize(config.layers[l].total_width());
      for (float& v : values[l]) v = static_cast<float>(rng.uniform());
    }
    TrimOptions options = equal_widths(WidthRule::kPerLayer, 1);
    options.keep.reset();
    options.bytes = {.fixed = 0, .per_neuron = 1, .per_expert = 0};
    options.budget = static_cast<std::int64_t>(rng.below(32));
    const auto widths =
        kept_widths(plan_trim(neuron_scores(config, values), config, options));
    std::int64_t total = 0;
    for (std::size_t l = 0; l < 2; ++l) {
      const std::int64_t widest = std::ranges::max(widths[l]);
      for (std::size_t e = 0; e < widths[l].size(); ++e) {
        REQUIRE(
            widths[l][e] ==
            std::min(widest, config.layers[l].expert_widths[e]));
        total += widths[l][e];
      }
    }
    REQUIRE(total <= *options.budget);
    // What is left is less than the next rank of any layer.
    if (total < 31) REQUIRE(*options.budget - total < 4);
  }
}

TEST_CASE("Rounding, floors and caps hold for equal widths") {
  TrimOptions options = equal_widths(WidthRule::kPerLayer, 0.5);
  options.round = 2;
  options.min_width = 1;
  options.max_width = 3;
  // The floor is rounded up to 2, the cap down to 2.
  REQUIRE(
      kept_widths(plan_trim(small_scores(), small_config(), options)) ==
      Rows{{2, 2}, {2, 2}});
  options.keep = 0.4;
  REQUIRE_THROWS_WITH(
      plan_trim(small_scores(), small_config(), options),
      Contains("the smallest is 0.5000"));
}

TEST_CASE("A budget holds for equal widths") {
  TrimOptions options = equal_widths(WidthRule::kUniform, 1);
  options.keep.reset();
  options.bytes = {.fixed = 100, .per_neuron = 10, .per_expert = 1};
  for (std::int64_t bytes = 104; bytes <= 270; ++bytes) {
    options.budget = bytes;
    const std::int64_t expected = std::min<std::int64_t>((bytes - 104) / 40, 4);
    REQUIRE(
        kept_widths(plan_trim(small_scores(), small_config(), options)) ==
        Rows(2, {expected, expected}));
  }
}

TEST_CASE("Equal widths that make no sense are refused") {
  struct Case {
    std::function<void(TrimOptions&)> change;
    std::string message;
  };
  const auto sample = GENERATE(values<Case>({
      {[](TrimOptions& o) { o.scope = Scope::kExpert; }, "scope expert keeps"},
      {[](TrimOptions& o) { o.scope = Scope::kLayer; }, "needs scope global"},
      {[](TrimOptions& o) { o.unit = TrimUnit::kExpert; },
       "go with unit neuron"},
      {[](TrimOptions& o) {
         o.unit = TrimUnit::kMixed, o.widths = WidthRule::kPerLayer;
       },
       "go with unit neuron"},
  }));
  TrimOptions options = equal_widths(WidthRule::kUniform, 0.5);
  sample.change(options);
  REQUIRE_THROWS_WITH(
      plan_trim(small_scores(), small_config(), options),
      Contains(sample.message));
}

TEST_CASE("Scores that are 0 everywhere are refused") {
  const auto config = small_config();
  const std::vector<float> none(8, 0.0f);
  REQUIRE_THROWS_WITH(
      plan_trim(
          neuron_scores(config, {none, none}),
          config,
          equal_widths(GENERATE(WidthRule::kFree, WidthRule::kUniform), 0.5)),
      Contains("score obs: is 0 everywhere"));
  std::vector<float> one = none;
  one[7] = 1;
  REQUIRE_NOTHROW(plan_trim(
      neuron_scores(config, {none, one}),
      config,
      equal_widths(WidthRule::kFree, 0.5)));
}

}  // namespace
}  // namespace fettle::trim
