// SPDX-License-Identifier: Apache-2.0
#include "artifact/trim_plan.h"

#include <catch2/catch.hpp>

#include "core/error.h"
#include "tiny_model.h"

namespace fettle::artifact {
namespace {

using Catch::Matchers::Contains;
using Indices = std::vector<std::int64_t>;

TrimPlan sample_plan() {
  TrimPlan plan;
  plan.model_fingerprint = "abc";
  plan.options = {{"keep", 0.5}};
  plan.layers = {
      {{{0, {0, 1, 2}}, {2, {}}, {3, {1, 5}}}, 2},
      {{{1, {4}}, {2, {0, 2, 4}}}, 2}};
  return plan;
}

TEST_CASE("Spans are written and read back") {
  REQUIRE(format_spans({}) == "");
  REQUIRE(format_spans({0, 1, 2, 3, 7}) == "0-3,7");
  REQUIRE(format_spans({5}) == "5");
  REQUIRE(format_spans({1, 3, 4}) == "1,3-4");
  for (const Indices& indices :
       {Indices{}, Indices{0}, Indices{0, 1}, Indices{2, 4, 5, 6, 99}}) {
    REQUIRE(parse_spans(format_spans(indices), "x") == indices);
  }
}

TEST_CASE("Malformed spans are refused") {
  const std::string text = GENERATE(
      "3-1",
      "1,1",
      "5,2",
      "1-3,3",
      ",",
      "1,",
      "a",
      "-1",
      "1-",
      "1;2",
      "99999999999999999999",
      "0-999999999");
  REQUIRE_THROWS_WITH(
      parse_spans(text, "expert 4"), Contains("expert 4: expected ascending"));
}

TEST_CASE("A plan comes back as it was saved") {
  const testing::TemporaryFolder folder;
  const TrimPlan plan = sample_plan();
  plan.save(folder.path() / "trim_plan.json");
  const TrimPlan loaded = TrimPlan::load(folder.path() / "trim_plan.json");
  REQUIRE((loaded.layers == plan.layers));
  REQUIRE(loaded.options == plan.options);
  REQUIRE(loaded.model_fingerprint == "abc");
}

TEST_CASE("Damaged plans are refused") {
  Json json = sample_plan().to_json();
  std::string message;
  SECTION("another format") {
    json["format"] = 2;
    message = "expected 1, found 2";
  }
  SECTION("experts out of order") {
    json["layers"][1]["experts"][0]["expert"] = 2;
    message = "ascending expert numbers";
  }
  SECTION("experts that are no list") {
    json["layers"][1]["experts"] = 1;
    message = "expected a list";
  }
  SECTION("layers that are no list") {
    json["layers"] = 1;
    message = "expected a list";
  }
  REQUIRE_THROWS_WITH(TrimPlan::from_json(json, "plan"), Contains(message));
}

TEST_CASE("A plan is held against the model") {
  TrimPlan plan = sample_plan();
  testing::TinyModelOptions options;
  std::string message;
  SECTION("that it fits") {
    REQUIRE_NOTHROW(plan.check_against(testing::tiny_config(options)));
    return;
  }
  SECTION("with another number of layers") {
    options.changes = {{"num_hidden_layers", 3}};
    message = "expected 3 layers, found 2";
  }
  SECTION("with fewer experts") {
    options.changes = {{"num_experts", 3}};
    message = "keeps expert 3 of 3";
  }
  SECTION("with narrower experts") {
    options.changes = {{"moe_intermediate_size", 5}};
    message = "neuron 5 of expert 3, which has 5";
  }
  SECTION("with a dense layer") {
    options.changes = {{"mlp_only_layers", {1}}};
    message = "layer is dense";
  }
  SECTION("with fewer experts than top_k") {
    plan.layers[1].experts.pop_back();
    message = "top_k = 2 kept experts, found 1";
  }
  REQUIRE_THROWS_WITH(
      plan.check_against(testing::tiny_config(options)), Contains(message));
}

}  // namespace
}  // namespace fettle::artifact
