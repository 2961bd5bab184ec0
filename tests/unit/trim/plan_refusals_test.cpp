// SPDX-License-Identifier: Apache-2.0
#include <catch2/catch.hpp>
#include <cmath>
#include <functional>
#include <limits>

#include "core/error.h"
#include "scores.h"
#include "trim/plan.h"

namespace fettle::trim {
namespace {

using namespace testing;
using Catch::Matchers::Contains;

artifact::ScoreFile sample_scores(const model::ModelConfig& config) {
  auto scores = neuron_scores(
      config, {std::vector<float>(24, 1.0f), std::vector<float>(24, 2.0f)});
  add_expert_scores(scores, "reap", {{1, 2, 3, 4}, {1, 2, 3, 4}});
  return scores;
}

TEST_CASE("obs ranks where nobody says otherwise, or the only score there is") {
  const auto config = fettle::testing::tiny_config({});
  auto scores = sample_scores(config);
  REQUIRE(default_score(scores) == "obs");
  for (auto& layer : scores.layers) {
    if (layer.widths.empty()) continue;
    layer.neuron = {{"wanda", layer.neuron.at("obs")}};
    layer.expert.clear();
  }
  REQUIRE(default_score(scores) == "wanda");
  for (auto& layer : scores.layers) {
    if (layer.widths.empty()) continue;
    layer.neuron["camera"] = layer.neuron.at("wanda");
  }
  REQUIRE_THROWS_WITH(
      default_score(scores), Contains("found camera, wanda; name one"));
}

TEST_CASE("Options that make no sense are refused") {
  struct Case {
    std::function<void(TrimOptions&)> change;
    std::string message;
  };
  const auto sample = GENERATE(values<Case>({
      {[](TrimOptions& o) { o.keep = 0.0; }, "(0, 1], found 0"},
      {[](TrimOptions& o) { o.keep = -0.5; }, "(0, 1], found -0.5"},
      {[](TrimOptions& o) { o.keep = 1.01; }, "(0, 1], found 1.01"},
      {[](TrimOptions& o) { o.keep = NAN; }, "(0, 1]"},
      {[](TrimOptions& o) { o.keep.reset(); }, "either a share"},
      {[](TrimOptions& o) { o.budget = 5; }, "either a share"},
      {[](TrimOptions& o) { o.round = 0; }, "1 or more, found 0"},
      {[](TrimOptions& o) { o.min_width = -1; }, "at least 0"},
      {[](TrimOptions& o) { o.min_width = 4, o.max_width = 3; },
       "at least min-width"},
      {[](TrimOptions& o) { o.unit = TrimUnit::kExpert, o.min_width = 1; },
       "use unit neuron"},
      {[](TrimOptions& o) { o.score = "wanda"; },
       "of neurons they have [obs], of experts [reap]"},
      {[](TrimOptions& o) { o.score = "reap"; }, "use unit expert"},
      {[](TrimOptions& o) { o.price_tokens = 1.5; }, "[0, 1], found 1.5"},
      {[](TrimOptions& o) { o.price_tokens = NAN; }, "a share in [0, 1]"},
      {[](TrimOptions& o) { o.price_tokens = 1, o.scope = Scope::kExpert; },
       "only there do experts compete"},
      {[](TrimOptions& o) { o.min_width = 4; }, "the smallest is 0.6667"},
      {[](TrimOptions& o) { o.min_width = 6, o.keep = 0.9; },
       "0.9 of the model is too little for the smallest width of every expert; "
       "the smallest is 1.0000"},
  }));
  const auto config = fettle::testing::tiny_config({});
  TrimOptions options;
  options.keep = 0.5;
  sample.change(options);
  REQUIRE_THROWS_AS(
      plan_trim(sample_scores(config), config, options), UserError);
  REQUIRE_THROWS_WITH(
      plan_trim(sample_scores(config), config, options),
      Contains(sample.message));
}

TEST_CASE("A budget below what can't be trimmed names the smallest") {
  const auto config = fettle::testing::tiny_config({});
  TrimOptions options;
  options.bytes = {.fixed = 1000, .per_neuron = 10, .per_expert = 1};
  options.budget = 1007;
  REQUIRE_THROWS_WITH(
      plan_trim(sample_scores(config), config, options),
      Contains("(1008 bytes)"));
  options.budget = 1008;
  REQUIRE(
      kept_widths(plan_trim(sample_scores(config), config, options)) ==
      std::vector<std::vector<std::int64_t>>(2, {0, 0, 0, 0}));
  options.min_width = 2;
  REQUIRE_THROWS_WITH(
      plan_trim(sample_scores(config), config, options),
      Contains("(1168 bytes)"));
  options.budget = 1168;
  REQUIRE_NOTHROW(plan_trim(sample_scores(config), config, options));
}

TEST_CASE("Scores that are not finite are refused") {
  const auto config = fettle::testing::tiny_config({});
  const float bad = GENERATE(
      std::numeric_limits<float>::quiet_NaN(),
      std::numeric_limits<float>::infinity());
  auto scores = sample_scores(config);
  scores.layers[1].neuron["obs"][7] = bad;
  scores.layers[1].expert["reap"][2] = bad;
  TrimOptions options;
  options.keep = 0.5;
  REQUIRE_THROWS_WITH(
      plan_trim(scores, config, options),
      Contains("layer 1, score obs: value 7"));
  options.unit = TrimUnit::kExpert;
  options.score = "reap";
  REQUIRE_THROWS_WITH(
      plan_trim(scores, config, options),
      Contains("layer 1, score reap: value 2"));
}

TEST_CASE("Square roots of negative scores are refused") {
  const auto config = fettle::testing::tiny_config({});
  auto scores = sample_scores(config);
  scores.layers[0].neuron["obs"][0] = -1;
  TrimOptions options;
  options.keep = 0.5;
  REQUIRE_NOTHROW(plan_trim(scores, config, options));
  options.normalise = Normalise::kSqrt;
  REQUIRE_THROWS_WITH(
      plan_trim(scores, config, options), Contains("at least 0"));
}

TEST_CASE("Scores of another shape are refused") {
  const auto config = fettle::testing::tiny_config({});
  TrimOptions options;
  options.keep = 0.5;
  auto scores = sample_scores(config);
  SECTION("layers") { scores.layers.pop_back(); }
  SECTION("widths") { scores.layers[1].widths[0] = 7; }
  REQUIRE_THROWS_WITH(
      plan_trim(scores, config, options), Contains("not the model's"));
}

TEST_CASE("A score array of another length is refused") {
  const auto config = fettle::testing::tiny_config({});
  TrimOptions options;
  options.keep = 0.5;
  auto scores = sample_scores(config);
  scores.layers[1].neuron["obs"] = at::zeros({23});
  REQUIRE_THROWS_WITH(
      plan_trim(scores, config, options),
      Contains("expected 24 values, found 23"));
}

TEST_CASE("Scores of another model are refused") {
  const fettle::testing::TinyModel tiny;
  const model::ModelReader reader(tiny.path());
  REQUIRE_THROWS_WITH(
      require_scores_of(reader, sample_scores(tiny.config())),
      Contains("those of another model (abc)"));
}

}  // namespace
}  // namespace fettle::trim
