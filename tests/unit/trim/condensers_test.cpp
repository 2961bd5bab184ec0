// SPDX-License-Identifier: Apache-2.0
#include "trim/condensers.h"

#include <catch2/catch.hpp>

#include "io/file.h"
#include "scores.h"
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
    options.unit = Unit::kExpert;
    const auto plan = plan_trim(scores, config, options);
    REQUIRE(kept_experts(plan, 0) == Kept{1, 3});
    REQUIRE(kept_experts(plan, 1) == Kept{0, 3});
    options.keep = 0.25;
    REQUIRE_THROWS_WITH(
        plan_trim(scores, config, options), Contains("the smallest is 0.5000"));
  }
  SECTION("mixed") {
    options.unit = Unit::kMixed;
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

TEST_CASE("Condensers are found in the model, its manifest, or the scores") {
  fettle::testing::TinyModelOptions options;
  options.changes = {{"condensers", {{2, 0}, {1}}}};
  const TinyModel in_config(options);
  artifact::ScoreFile scores = poor_condensers(in_config.config());
  const Condensers expected{{0, 2}, {1}};
  REQUIRE(
      find_condensers(model::ModelReader(in_config.path()), scores) ==
      expected);

  const TinyModel plain;
  const model::ModelReader reader(plain.path());
  REQUIRE(find_condensers(reader, scores).empty());
  scores.run = {{"condensers", {{3}, Json::array()}}};
  REQUIRE(find_condensers(reader, scores) == Condensers{{3}, {}});
  io::write_file(
      plain.path() / "fettle.json",
      R"({"format": 1, "stages": [], "condensers": [[1, 1], [0]]})");
  REQUIRE(find_condensers(reader, scores) == Condensers{{1}, {0}});
}

TEST_CASE("Condensers that are none are refused") {
  const auto config = fettle::testing::tiny_config({});
  struct Case {
    Json json;
    std::string message;
  };
  const auto sample = GENERATE(values<Case>({
      {3, "expected a list of 2 lists"},
      {{Json::array()}, "expected a list of 2 lists"},
      {{{1}, 2}, "expected a list for layer 1"},
      {{{1}, {4}}, "layer 1 has 4 experts, found 4"},
      {{{-1}, {1}}, "found -1"},
      {{{"1"}, {1}}, "found \"1\""},
  }));
  REQUIRE_THROWS_WITH(
      parse_condensers(sample.json, config, "config.json"),
      Contains("config.json: condensers: " + sample.message) ||
          Contains(sample.message));
}

TEST_CASE("After a trim condensers have new numbers") {
  fettle::testing::TinyModelOptions options;
  options.changes = {{"condensers", {{3, 1}, {2}}}};
  const TinyModel tiny(options);
  io::write_file(
      tiny.path() / "fettle.json",
      R"({"format": 1, "stages": [], "condensers": [[3], [2]]})");
  const model::ModelReader reader(tiny.path());
  artifact::TrimPlan plan;
  plan.model_fingerprint = reader.fingerprint();
  plan.layers = {
      {{{1, {0}}, {2, {1}}, {3, {2}}}, 2}, {{{0, {0}}, {2, {1}}}, 2}};
  const TemporaryFolder out;
  trim_model(reader, plan, {}, out.path());
  const Json config = read_json(out.path() / "config.json", "test");
  REQUIRE(config["condensers"] == Json({{0, 2}, {1}}));
  const Json manifest = read_json(out.path() / "fettle.json", "test");
  REQUIRE(manifest["condensers"] == Json({{2}, {1}}));
  REQUIRE(manifest["stages"].size() == 1);
}

}  // namespace
}  // namespace fettle::trim
