// SPDX-License-Identifier: Apache-2.0
#include <catch2/catch.hpp>

#include "scores.h"
#include "trim/plan.h"

namespace fettle::trim {
namespace {

using namespace testing;
using Catch::Matchers::Contains;
using Kept = std::vector<std::int64_t>;

// Two layers of eight experts with two neurons, top-2.
model::ModelConfig eight_experts() {
  fettle::testing::TinyModelOptions options;
  options.changes = {{"num_experts", 8}, {"moe_intermediate_size", 2}};
  return fettle::testing::tiny_config(options);
}

artifact::ScoreFile sample_scores() {
  auto scores = neuron_scores(
      eight_experts(),
      {{0, 0, 1, 1, 2, 2, 3, 3, 4, 4, 5, 5, 6, 6, 7, 7},
       {9, 0, 0, 8, 0, 7, 0, 6, 0, 5, 0, 4, 0, 3, 0, 2}});
  add_expert_scores(
      scores,
      "reap",
      {{8, 7, 6, 5, 4, 3, 2, 1}, {10, 20, 30, 40, 50, 60, 70, 80}});
  return scores;
}

TrimOptions options(const std::string& score, Scope scope, double keep) {
  TrimOptions result;
  result.score = score;
  result.unit = TrimUnit::kExpert;
  result.scope = scope;
  result.keep = keep;
  return result;
}

TEST_CASE("Whole experts are kept by their score") {
  const auto plan = plan_trim(
      sample_scores(), eight_experts(), options("reap", Scope::kLayer, 0.5));
  REQUIRE(kept_experts(plan, 0) == Kept{0, 1, 2, 3});
  REQUIRE(kept_experts(plan, 1) == Kept{4, 5, 6, 7});
  REQUIRE(plan.layers[0].experts[0].neurons == Kept{0, 1});
}

TEST_CASE("A neuron score ranks experts by its sum") {
  const auto plan = plan_trim(
      sample_scores(), eight_experts(), options("obs", Scope::kLayer, 0.25));
  REQUIRE(kept_experts(plan, 0) == Kept{6, 7});
  REQUIRE(kept_experts(plan, 1) == Kept{0, 1});
}

TEST_CASE("Over the whole model every layer keeps top_k experts") {
  const auto plan = plan_trim(
      sample_scores(), eight_experts(), options("reap", Scope::kGlobal, 0.5));
  REQUIRE(kept_experts(plan, 0) == Kept{0, 1});
  REQUIRE(kept_experts(plan, 1) == Kept{2, 3, 4, 5, 6, 7});
}

TEST_CASE("Fewer experts than top_k are refused with what would do") {
  REQUIRE_THROWS_WITH(
      plan_trim(
          sample_scores(),
          eight_experts(),
          options("reap", Scope::kLayer, 0.1)),
      Contains("0.1 of layer 0 is too little for the experts that the router "
               "needs; the smallest is 0.2500"));
}

TEST_CASE("A grouped router keeps equally many experts of each group") {
  model::ModelConfig config = eight_experts();
  config.router.groups = 2;
  config.router.topk_groups = 1;
  const auto trim = [&](double keep) {
    return plan_trim(
        sample_scores(), config, options("reap", Scope::kLayer, keep));
  };
  const auto plan = trim(0.5);
  REQUIRE(kept_experts(plan, 0) == Kept{0, 1, 4, 5});
  REQUIRE(kept_experts(plan, 1) == Kept{2, 3, 6, 7});
  // A token's two experts come from one group.
  REQUIRE_THROWS_WITH(trim(0.25), Contains("the smallest is 0.5000"));
  config.router.topk_groups = 2;
  REQUIRE(kept_experts(trim(0.25), 0) == Kept{0, 4});
  config.router.group_score = model::GroupScore::kTopTwoSum;
  REQUIRE_THROWS_WITH(trim(0.25), Contains("the smallest is 0.5000"));
  // Loaders add up two scores even of a single group.
  config.router.groups = 1;
  config.router.topk_groups = 1;
  for (model::LayerConfig& layer : config.layers) layer.top_k = 1;
  REQUIRE_THROWS_WITH(trim(0.125), Contains("the smallest is 0.2500"));
}

TEST_CASE("A budget of bytes holds for whole experts of any width") {
  model::ModelConfig config = eight_experts();
  config.layers[0].expert_widths = {8, 1, 1, 1, 1, 1, 1, 2};
  auto scores = neuron_scores(
      config, {std::vector<float>(16, 1.0f), std::vector<float>(16, 1.0f)});
  add_expert_scores(
      scores, "reap", {{9, 1, 1, 1, 1, 1, 1, 8}, {7, 6, 5, 1, 1, 1, 1, 1}});
  TrimOptions budget;
  budget.score = "reap";
  budget.unit = TrimUnit::kExpert;
  budget.bytes = {.fixed = 100, .per_neuron = 10, .per_expert = 5};
  // The two best of layer 0 cost 85 and 25, those of layer 1 25 each.
  budget.budget = 100 + 85 + 3 * 25;
  const auto plan = plan_trim(scores, config, budget);
  REQUIRE(kept_experts(plan, 0) == Kept{0, 7});
  REQUIRE(kept_experts(plan, 1) == Kept{0, 1});
  budget.budget = *budget.budget + 25;
  REQUIRE(kept_experts(plan_trim(scores, config, budget), 1) == Kept{0, 1, 2});
  budget.budget = 100 + 85 + 3 * 25 - 1;
  REQUIRE_THROWS_WITH(
      plan_trim(scores, config, budget), Contains("(260 bytes)"));
}

}  // namespace
}  // namespace fettle::trim
