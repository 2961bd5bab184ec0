// SPDX-License-Identifier: Apache-2.0
#include <time.h>

#include <catch2/catch.hpp>
#include <cmath>
#include <numeric>

#include "core/rng.h"
#include "scores.h"
#include "trim/plan.h"

namespace fettle::trim {
namespace {

using namespace testing;
using Table = std::vector<std::vector<std::int64_t>>;

// Two layers of two experts with four neurons each.
model::ModelConfig two_by_two() {
  fettle::testing::TinyModelOptions options;
  options.changes = {{"num_experts", 2}, {"moe_intermediate_size", 4}};
  return fettle::testing::tiny_config(options);
}

artifact::ScoreFile sample_scores() {
  return neuron_scores(
      two_by_two(),
      {{16, 1, 15, 2, /**/ 14, 13, 3, 4}, {12, 11, 10, 9, /**/ 5, 6, 7, 8}});
}

TrimOptions options(Scope scope, double keep) {
  TrimOptions result;
  result.scope = scope;
  result.keep = keep;
  return result;
}

TEST_CASE("Scopes decide what competes") {
  const auto scores = sample_scores();
  const auto config = two_by_two();
  const auto widths = [&](Scope scope, double keep) {
    return kept_widths(plan_trim(scores, config, options(scope, keep)));
  };
  REQUIRE(widths(Scope::kGlobal, 0.5) == Table{{2, 2}, {4, 0}});
  REQUIRE(widths(Scope::kLayer, 0.5) == Table{{2, 2}, {4, 0}});
  REQUIRE(widths(Scope::kExpert, 0.5) == Table{{2, 2}, {2, 2}});
  REQUIRE(widths(Scope::kGlobal, 0.25) == Table{{2, 2}, {0, 0}});
  REQUIRE(widths(Scope::kLayer, 0.25) == Table{{2, 0}, {2, 0}});
  REQUIRE(widths(Scope::kExpert, 0.25) == Table{{1, 1}, {1, 1}});
  REQUIRE(widths(Scope::kGlobal, 1.0) == Table{{4, 4}, {4, 4}});
}

TEST_CASE("A price of tokens cuts the experts that many choose") {
  auto scores = sample_scores();
  // The first expert sees nine times the tokens of the others.
  scores.layers[0].tokens = at::tensor({9, 1}, at::kLong);
  TrimOptions some = options(Scope::kGlobal, 0.5);
  const auto widths = [&](double price) {
    some.price_tokens = price;
    return kept_widths(plan_trim(scores, two_by_two(), some));
  };
  REQUIRE(widths(0) == Table{{2, 2}, {4, 0}});
  // A mean neuron passes 3 tokens: the first expert's cost 3, others 1/3.
  REQUIRE(widths(1) == Table{{0, 2}, {4, 2}});
  // They cost 1.2, others 14/15: 16 counts as 13.3, 15 as 12.5, 9 as 9.6.
  REQUIRE(widths(0.1) == Table{{2, 2}, {4, 0}});
  REQUIRE(plan_trim(scores, two_by_two(), some).options["price_tokens"] == 0.1);
}

TEST_CASE("The best neurons are kept, in ascending order") {
  const auto plan =
      plan_trim(sample_scores(), two_by_two(), options(Scope::kExpert, 0.5));
  using Kept = std::vector<std::int64_t>;
  REQUIRE(plan.layers[0].experts[0].neurons == Kept{0, 2});
  REQUIRE(plan.layers[0].experts[1].neurons == Kept{0, 1});
  REQUIRE(plan.layers[1].experts[1].neurons == Kept{2, 3});
  REQUIRE(plan.layers[0].top_k == 2);
  REQUIRE(plan.model_fingerprint == "abc");
  REQUIRE(plan.options["scope"] == "expert");
  REQUIRE(plan.options["keep"] == 0.5);
}

TEST_CASE("Ties go to the lower index") {
  const auto config = two_by_two();
  const auto scores = neuron_scores(
      config, {std::vector<float>(8, 1.0f), std::vector<float>(8, 1.0f)});
  const auto plan = plan_trim(scores, config, options(Scope::kGlobal, 0.375));
  REQUIRE(kept_widths(plan) == Table{{4, 2}, {0, 0}});
  REQUIRE(plan.layers[0].experts[1].neurons == std::vector<std::int64_t>{0, 1});
}

TEST_CASE("Normalising makes layers comparable") {
  const auto config = two_by_two();
  // The second layer's scores are the first's, a hundred times as large.
  std::vector<float> small{8, 7, 6, 5, 4, 3, 2, 1};
  std::vector<float> large;
  for (const float value : small) large.push_back(100 * value);
  const auto scores = neuron_scores(config, {small, large});
  TrimOptions raw = options(Scope::kGlobal, 0.5);
  REQUIRE(kept_widths(plan_trim(scores, config, raw)) == Table{{0, 0}, {4, 4}});
  TrimOptions mean = raw;
  mean.normalise = Normalise::kLayerMean;
  REQUIRE(
      kept_widths(plan_trim(scores, config, mean)) == Table{{4, 0}, {4, 0}});
  // Square roots change the means of steps: 16 + 0 > 9 + 2.25, but
  // 4 + 0 < 3 + 1.5.
  const auto uneven = neuron_scores(
      config, {{16, 0, 0, 0, 9, 2.25, 0, 0}, std::vector<float>(8, 0.0f)});
  TrimOptions root = options(Scope::kGlobal, 0.125);
  root.round = 2;
  REQUIRE(kept_widths(plan_trim(uneven, config, root))[0][0] == 2);
  root.normalise = Normalise::kSqrt;
  REQUIRE(kept_widths(plan_trim(uneven, config, root))[0][1] == 2);
}

TEST_CASE("Floors and caps bound every expert") {
  TrimOptions bounded = options(Scope::kGlobal, 0.5);
  bounded.min_width = 1;
  REQUIRE(
      kept_widths(plan_trim(sample_scores(), two_by_two(), bounded)) ==
      Table{{2, 2}, {3, 1}});
  bounded.max_width = 2;
  REQUIRE(
      kept_widths(plan_trim(sample_scores(), two_by_two(), bounded)) ==
      Table{{2, 2}, {2, 2}});
}

TEST_CASE("Widths are multiples of round, or all there is") {
  fettle::testing::TinyModelOptions ragged;
  ragged.widths = {{6, 5, 0, 3}, {6, 6, 1, 4}};
  const auto config = fettle::testing::tiny_config(ragged);
  Rng rng(3);
  for (int i = 0; i < 300; ++i) {
    std::vector<std::vector<float>> values(2);
    for (std::size_t l = 0; l < 2; ++l) {
      values[l].resize(config.layers[l].total_width());
      for (float& v : values[l]) v = static_cast<float>(rng.uniform());
    }
    const auto scores = neuron_scores(config, values);
    TrimOptions random =
        options(static_cast<Scope>(rng.below(3)), 0.05 + 0.95 * rng.uniform());
    random.round = static_cast<std::int64_t>(1 + rng.below(4));
    const auto widths = kept_widths(plan_trim(scores, config, random));
    std::int64_t total = 0;
    for (std::size_t l = 0; l < 2; ++l) {
      for (std::size_t e = 0; e < widths[l].size(); ++e) {
        const std::int64_t width = widths[l][e];
        const std::int64_t whole = config.layers[l].expert_widths[e];
        CAPTURE(l, e, width, whole, random.round);
        REQUIRE((width % random.round == 0 || width == whole));
        total += width;
      }
    }
    // Half a step from the share, and half a neuron from rounding it.
    if (random.scope == Scope::kGlobal) {
      const double error =
          std::abs(static_cast<double>(total) - *random.keep * 31);
      CAPTURE(total, *random.keep, random.round);
      REQUIRE(error <= 0.5 * static_cast<double>(random.round) + 0.5);
    }
  }
}

TEST_CASE("A budget of bytes is never passed, and met to within a step") {
  const auto config = two_by_two();
  TrimOptions budget;
  budget.bytes = {.fixed = 1000, .per_neuron = 48, .per_expert = 20};
  const std::int64_t fixed = 1000 + 4 * 20;
  for (std::int64_t bytes = fixed; bytes < fixed + 17 * 48; ++bytes) {
    budget.budget = bytes;
    budget.round = 1 + bytes % 2;
    std::int64_t kept = 0;
    for (const auto& layer :
         kept_widths(plan_trim(sample_scores(), config, budget))) {
      kept += std::accumulate(layer.begin(), layer.end(), std::int64_t{0});
    }
    const std::int64_t size = fixed + 48 * kept;
    REQUIRE(size <= bytes);
    if (kept < 16) REQUIRE(size + 48 * budget.round > bytes);
  }
}

double thread_seconds() {
  timespec now{};
  clock_gettime(CLOCK_THREAD_CPUTIME_ID, &now);
  return static_cast<double>(now.tv_sec) +
         1e-9 * static_cast<double>(now.tv_nsec);
}

TEST_CASE(
    "6,144 experts of 768 neurons are planned within a second", "[timed]") {
  fettle::testing::TinyModelOptions large;
  large.changes = {
      {"num_hidden_layers", 48},
      {"num_experts", 128},
      {"moe_intermediate_size", 768}};
  const auto config = fettle::testing::tiny_config(large);
  Rng rng(5);
  std::vector<std::vector<float>> values(48);
  for (auto& layer : values) {
    layer.resize(128 * 768);
    for (float& v : layer) v = static_cast<float>(std::exp(rng.normal()));
  }
  const auto scores = neuron_scores(config, values);
  TrimOptions half = options(Scope::kGlobal, 0.5);
  half.round = GENERATE(1, 16);
  half.bytes = {.fixed = 0, .per_neuron = 12288, .per_expert = 4096};
  SECTION("free") {}
  SECTION("a width a layer") { half.widths = WidthRule::kPerLayer; }
  SECTION("one width") { half.widths = WidthRule::kUniform; }
  SECTION("mixed") { half.unit = TrimUnit::kMixed; }
  const double begin = thread_seconds();
  const auto plan = plan_trim(scores, config, half);
  const double seconds = thread_seconds() - begin;
  CAPTURE(half.round, seconds);
  REQUIRE(plan.layers.size() == 48);
#ifdef __OPTIMIZE__
  CHECK(seconds < 1.0);
#endif
}

}  // namespace
}  // namespace fettle::trim
