// SPDX-License-Identifier: Apache-2.0
#include "trim/condensers.h"

#include <catch2/catch.hpp>

#include "scores.h"
#include "trim/cut_layer.h"
#include "trim/plan.h"
#include "trim/slice.h"

namespace fettle::trim {
namespace {

using namespace testing;
using Catch::Matchers::Contains;
using fettle::testing::TemporaryFolder;
using fettle::testing::TinyModel;
using Kept = std::vector<std::int64_t>;

// Experts 1 (of layer 0) and 3 (of both) are worth the least.
artifact::ScoreFile poor_condensers(const model::ModelConfig& config) {
  std::vector<float> values(24, 5.0f);
  for (int k = 0; k < 6; ++k) values[6 + k] = values[18 + k] = 0.1f;
  return neuron_scores(config, {values, values});
}

TEST_CASE("Condensers are not removed and keep their width") {
  const auto config = fettle::testing::tiny_config({});
  const auto scores = poor_condensers(config);
  TrimOptions options;
  options.keep = 0.5;
  options.scope = Scope::kLayer;
  options.condensers = {{1, 3}, {3}};
  options.condenser_width = 2;
  SECTION("neurons") {
    const auto widths = kept_widths(plan_trim(scores, config, options));
    REQUIRE(widths[0] == Kept{6, 2, 2, 2});
    REQUIRE(widths[1] == Kept{6, 0, 4, 2});
  }
  SECTION("experts") {
    options.unit = TrimUnit::kExpert;
    const auto plan = plan_trim(scores, config, options);
    REQUIRE(kept_experts(plan, 0) == Kept{1, 3});
    REQUIRE(kept_experts(plan, 1) == Kept{0, 3});
    options.keep = 0.25;
    REQUIRE_THROWS_WITH(
        plan_trim(scores, config, options), Contains("the smallest is 0.5000"));
  }
  SECTION("mixed") {
    options.unit = TrimUnit::kMixed;
    options.bytes = {.fixed = 0, .per_neuron = 10, .per_expert = 5};
    options.keep = 0.3;
    const auto plan = plan_trim(scores, config, options);
    REQUIRE(kept_experts(plan, 0) == Kept{1, 3});
    const auto experts = kept_experts(plan, 1);
    REQUIRE(std::ranges::count(experts, 3) == 1);
    REQUIRE(kept_widths(plan)[0][0] >= 2);
  }
}

TEST_CASE("A condenser's width is rounded as every width") {
  const auto config = fettle::testing::tiny_config({});
  TrimOptions options;
  options.keep = 0.5;
  options.round = 4;
  options.condensers = {{1}, {}};
  options.condenser_width = 3;
  const auto widths =
      kept_widths(plan_trim(poor_condensers(config), config, options));
  REQUIRE(widths[0][1] == 4);
  options.condenser_width = -1;
  REQUIRE_THROWS_WITH(
      plan_trim(poor_condensers(config), config, options),
      Contains("condenser-width"));
}

fettle::testing::TinyModelOptions with_condensers() {
  fettle::testing::TinyModelOptions options;
  options.condensers = {1, 3};
  options.router_bias = true;
  // Biases that differ and show in the routing.
  options.edit = [](const model::WeightId& id, at::Tensor tensor) {
    return id.role == model::Role::kRouterBias ? (tensor - 1) * 20 : tensor;
  };
  return options;
}

artifact::TrimPlan condensed_plan(
    const model::ModelReader& reader, std::vector<artifact::LayerPlan> layers) {
  artifact::TrimPlan plan;
  plan.model_fingerprint = reader.fingerprint();
  plan.layers = std::move(layers);
  return plan;
}

TEST_CASE("A model's condensers are those that a plan spares") {
  REQUIRE(condensers_of(fettle::testing::tiny_config({})).empty());
  auto options = with_condensers();
  options.changes = {{"mlp_only_layers", {0}}};
  REQUIRE(
      condensers_of(fettle::testing::tiny_config(options)) ==
      Condensers{{}, {1, 3}});
}

TEST_CASE("After a trim condensers have new numbers and their biases") {
  const TinyModel tiny(with_condensers());
  const model::ModelReader reader(tiny.path());
  const auto plan = condensed_plan(
      reader,
      {{{{1, {0}}, {2, {1}}, {3, {2}}}, 2},
       {{{0, {0}}, {1, {1}}, {3, {}}}, 2}});
  const TemporaryFolder out;
  trim_model(reader, plan, {}, out.path());
  const model::ModelReader trimmed(out.path());
  REQUIRE(trimmed.config().layers[0].condensers == Kept{0, 2});
  REQUIRE(trimmed.config().layers[1].condensers == Kept{1, 2});
  const model::WeightId bias{model::Role::kRouterBias, 0};
  REQUIRE(trimmed.read(bias).equal(
      reader.read(bias).index_select(0, at::tensor({1, 2, 3}))));

  // As a layer cut in memory is.
  const auto cut = cut_layer(reader.read_layer(0, at::kFloat), plan.layers[0]);
  const auto read = trimmed.read_layer(0, at::kFloat);
  REQUIRE(cut.condensers == read.condensers);
  REQUIRE(cut.router_bias.equal(read.router_bias));
}

TEST_CASE("A plan that removes a condenser is refused") {
  const TinyModel tiny(with_condensers());
  const model::ModelReader reader(tiny.path());
  const auto plan = condensed_plan(
      reader, {{{{1, {0}}, {3, {2}}}, 2}, {{{0, {0}}, {2, {1}}, {3, {}}}, 2}});
  const TemporaryFolder out;
  REQUIRE_THROWS_WITH(
      trim_model(reader, plan, {}, out.path()),
      Contains("layer 1: the plan removes an expert that works on every"));
  REQUIRE(std::filesystem::is_empty(out.path()));
}

}  // namespace
}  // namespace fettle::trim
