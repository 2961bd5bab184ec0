// SPDX-License-Identifier: Apache-2.0
#include <algorithm>
#include <catch2/catch.hpp>
#include <cmath>
#include <functional>
#include <limits>
#include <numeric>

#include "core/rng.h"
#include "scores.h"
#include "trim/plan.h"

namespace fettle::trim {
namespace {

using namespace testing;
using Catch::Matchers::Contains;
using Rows = std::vector<std::vector<std::int64_t>>;
using Kept = std::vector<std::int64_t>;

// Two layers of `experts` experts with two neurons, top-2.
model::ModelConfig config_of(std::int64_t experts) {
  fettle::testing::TinyModelOptions options;
  options.changes = {{"num_experts", experts}, {"moe_intermediate_size", 2}};
  return fettle::testing::tiny_config(options);
}

// A neuron takes 10 bytes, a router row 5; 20 bytes are fixed.
TrimOptions mixed_options(std::int64_t budget) {
  TrimOptions options;
  options.unit = TrimUnit::kMixed;
  options.exchange_rate = 1;
  options.bytes = {.fixed = 20, .per_neuron = 10, .per_expert = 5};
  options.budget = budget;
  return options;
}

artifact::ScoreFile sample_mixed_scores() {
  // Layer 1 is out of the question.
  return neuron_scores(
      config_of(4),
      {{10, 9, /**/ 8, 7, /**/ 6, 0.1f, /**/ 1, 1},
       {100, 100, 100, 100, 100, 100, 100, 100}});
}

TEST_CASE("The expert worth the least per byte goes whole") {
  // All take 220 bytes: 20 fixed, 100 a layer.
  const auto plan = [](std::int64_t budget) {
    return plan_trim(
        sample_mixed_scores(), config_of(4), mixed_options(budget));
  };
  REQUIRE(kept_widths(plan(220))[0] == Kept{2, 2, 2, 2});
  // Expert 2's second neuron is worth 0.1 for 10 bytes, expert 3 2 for 25.
  REQUIRE(kept_widths(plan(210))[0] == Kept{2, 2, 1, 2});
  REQUIRE(kept_experts(plan(209), 0) == Kept{0, 1, 2});
  // What that frees is given back: expert 2 is whole again.
  REQUIRE(kept_widths(plan(195))[0] == Kept{2, 2, 2});
  REQUIRE(kept_widths(plan(194))[0] == Kept{2, 2, 1});
  REQUIRE(kept_widths(plan(194))[1] == Kept{2, 2, 2, 2});
  REQUIRE(plan(194).options["exchange_rate"] == 1.0);
  REQUIRE(plan(194).options["unit"] == "mixed");
}

TEST_CASE("The exchange rate is what a whole expert costs") {
  TrimOptions options = mixed_options(190);
  // At three times its sum expert 3 had better lose its neurons.
  options.exchange_rate = 3;
  REQUIRE(
      kept_widths(plan_trim(sample_mixed_scores(), config_of(4), options))[0] ==
      Kept{2, 2, 1, 0});
  // At a hundredth, expert 2 goes whole before it loses its second neuron.
  options.exchange_rate = 0.01;
  options.budget = 219;
  const auto plan = plan_trim(sample_mixed_scores(), config_of(4), options);
  REQUIRE(kept_experts(plan, 0).size() < 4);
}

TEST_CASE("Mixed plans keep what the router needs") {
  const auto plan =
      plan_trim(sample_mixed_scores(), config_of(4), mixed_options(20 + 4 * 5));
  // Top-2: two experts a layer, without neurons.
  REQUIRE(kept_widths(plan) == Rows{{0, 0}, {0, 0}});
  REQUIRE(kept_experts(plan, 0) == Kept{0, 1});
  REQUIRE_THROWS_WITH(
      plan_trim(
          sample_mixed_scores(), config_of(4), mixed_options(20 + 4 * 5 - 1)),
      Contains("(40 bytes)"));
  TrimOptions bounded = mixed_options(20 + 4 * 15 - 1);
  bounded.min_width = 1;
  REQUIRE_THROWS_WITH(
      plan_trim(sample_mixed_scores(), config_of(4), bounded),
      Contains("(80 bytes)"));
}

TEST_CASE("Mixed plans keep equally many experts of each router group") {
  model::ModelConfig config = config_of(8);
  config.router.groups = 2;
  config.router.topk_groups = 2;
  std::vector<float> values(16, 5.0f);
  // Three experts of the first group are worth next to nothing.
  for (int k = 0; k < 6; ++k) values[k] = 0.01f;
  const std::vector<float> high(16, 100.0f);
  const auto scores = neuron_scores(config, {values, high});
  // 420 bytes in all. Their neurons are worth less than anything else.
  REQUIRE(
      kept_widths(plan_trim(scores, config, mixed_options(420 - 60)))[0] ==
      Kept{0, 0, 0, 2, 2, 2, 2, 2});
  // Then each takes one of the second group along, 30 bytes at a time.
  const auto plan = plan_trim(scores, config, mixed_options(420 - 100));
  const auto kept = kept_experts(plan, 0);
  REQUIRE(kept.size() == 4);
  REQUIRE(
      std::ranges::count_if(kept, [](std::int64_t e) { return e < 4; }) == 2);
}

TEST_CASE("A mixed plan keeps to its bytes, for random scores") {
  const auto config = config_of(6);
  Rng rng(8);
  for (int round = 0; round < 200; ++round) {
    std::vector<std::vector<float>> values(2, std::vector<float>(12));
    for (auto& layer : values) {
      for (float& v : layer) v = static_cast<float>(std::exp(rng.normal()));
    }
    TrimOptions options =
        mixed_options(40 + static_cast<std::int64_t>(rng.below(261)));
    options.scope = rng.below(2) == 0 ? Scope::kGlobal : Scope::kLayer;
    options.exchange_rate = 0.5 + rng.uniform();
    const auto plan = plan_trim(neuron_scores(config, values), config, options);
    std::int64_t bytes = 20;
    for (const auto& layer : plan.layers) {
      REQUIRE(layer.experts.size() >= 2);
      for (const auto& expert : layer.experts) {
        bytes += 5 + 10 * static_cast<std::int64_t>(expert.neurons.size());
      }
    }
    REQUIRE(bytes <= *options.budget);
    // One neuron a pool may be missing, and half of it lost in the division.
    REQUIRE(
        bytes > *options.budget - 26 - (options.scope == Scope::kLayer) * 26);
  }
}

TEST_CASE("A share of a mixed plan is a share of its bytes") {
  TrimOptions options = mixed_options(0);
  options.budget.reset();
  options.keep = 0.875;  // 175 of 200
  REQUIRE(
      kept_widths(plan_trim(sample_mixed_scores(), config_of(4), options))[0] ==
      Kept{2, 2, 2});
}

TEST_CASE("The best shape of equal experts is found") {
  // Layer 0: two experts hold nearly all; layer 1: all first neurons do.
  const auto scores = neuron_scores(
      config_of(4),
      {{50, 50, /**/ 1, 1, /**/ 50, 50, /**/ 1, 1},
       {9, 1, /**/ 9, 1, /**/ 9, 1, /**/ 9, 1}});
  TrimOptions options = mixed_options(20 + 100);
  options.widths = WidthRule::kUniform;
  // Two experts of width 2 lose 4 + 20; four of width 1 do not fit.
  const auto plan = plan_trim(scores, config_of(4), options);
  REQUIRE(kept_widths(plan) == Rows{{2, 2}, {2, 2}});
  REQUIRE(kept_experts(plan, 0) == Kept{0, 2});
  REQUIRE(kept_experts(plan, 1) == Kept{0, 1});
  // Now they do, and lose 102 + 4; two experts at five times their sum 120.
  options.exchange_rate = 5;
  options.budget = 20 + 120;
  REQUIRE(
      kept_widths(plan_trim(scores, config_of(4), options)) ==
      Rows{{1, 1, 1, 1}, {1, 1, 1, 1}});
  options.exchange_rate = 4;
  REQUIRE(
      kept_widths(plan_trim(scores, config_of(4), options)) ==
      Rows{{2, 2}, {2, 2}});
  options.budget = 20 + 4 * 5 - 1;
  REQUIRE_THROWS_WITH(
      plan_trim(scores, config_of(4), options), Contains("(40 bytes)"));
}

// Of two layers of six experts with five neurons: the sum of what is kept when
// each layer keeps its `experts` best ones, `width` neurons wide.
double kept_sum(
    const std::vector<std::vector<float>>& values,
    std::size_t experts,
    std::size_t width) {
  double sum = 0;
  for (const auto& layer : values) {
    std::vector<std::vector<float>> rows;
    for (int e = 0; e < 6; ++e) {
      rows.emplace_back(layer.begin() + 5 * e, layer.begin() + 5 * e + 5);
      std::ranges::sort(rows.back(), std::greater<>());
    }
    const auto total = [](const std::vector<float>& row, std::size_t count) {
      return std::accumulate(row.begin(), row.begin() + count, 0.0);
    };
    std::ranges::sort(
        rows, std::greater<>(), [&](const auto& row) { return total(row, 5); });
    for (std::size_t e = 0; e < experts; ++e) sum += total(rows[e], width);
  }
  return sum;
}

TEST_CASE("No other shape of equal experts keeps more, for random scores") {
  fettle::testing::TinyModelOptions six;
  six.changes = {{"num_experts", 6}, {"moe_intermediate_size", 5}};
  const auto config = fettle::testing::tiny_config(six);
  Rng rng(9);
  for (int round = 0; round < 100; ++round) {
    std::vector<std::vector<float>> values(2, std::vector<float>(30));
    for (auto& layer : values) {
      for (float& v : layer) v = static_cast<float>(std::exp(rng.normal()));
    }
    TrimOptions options =
        mixed_options(40 + static_cast<std::int64_t>(rng.below(641)));
    options.widths = WidthRule::kUniform;
    const auto plan = plan_trim(neuron_scores(config, values), config, options);
    const Rows widths = kept_widths(plan);
    REQUIRE(widths[0] == widths[1]);
    REQUIRE(widths[0] == Kept(widths[0].size(), widths[0][0]));
    double found = 0;
    for (std::size_t l = 0; l < 2; ++l) {
      for (const auto& expert : plan.layers[l].experts) {
        for (const std::int64_t k : expert.neurons) {
          found += values[l][5 * expert.expert + k];
        }
      }
    }
    double best = 0;
    for (std::int64_t experts = 2; experts <= 6; ++experts) {
      const std::int64_t left = *options.budget - 20 - 2 * experts * 5;
      if (left < 0) continue;
      const auto width = std::min<std::int64_t>(left / (2 * experts * 10), 5);
      best = std::max(best, kept_sum(values, experts, width));
    }
    REQUIRE(found == Approx(best));
  }
}

TEST_CASE("Mixed options that make no sense are refused") {
  TrimOptions options = mixed_options(200);
  options.scope = Scope::kExpert;
  REQUIRE_THROWS_WITH(
      plan_trim(sample_mixed_scores(), config_of(4), options),
      Contains("at least within a layer"));
  options.scope = Scope::kGlobal;
  options.exchange_rate =
      GENERATE(-1.0, NAN, std::numeric_limits<double>::infinity());
  REQUIRE_THROWS_WITH(
      plan_trim(sample_mixed_scores(), config_of(4), options),
      Contains("exchange-rate"));
}

}  // namespace
}  // namespace fettle::trim
