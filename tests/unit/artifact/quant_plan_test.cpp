// SPDX-License-Identifier: Apache-2.0
#include "artifact/quant_plan.h"

#include <catch2/catch.hpp>

#include "core/error.h"
#include "tiny_model.h"

namespace fettle::artifact {
namespace {

using Catch::Matchers::Contains;
using model::Role;
using model::WeightId;
using testing::TemporaryFolder;
using testing::tiny_config;
using testing::TinyModel;
using testing::TinyModelOptions;

// A name for every weight that no other has.
std::string label(const WeightId& id) {
  return std::string(model::role_name(id.role)) + " " +
         std::to_string(id.layer) + " " + std::to_string(id.expert);
}

QuantPlan labelled(const model::ModelConfig& config) {
  QuantPlan plan = QuantPlan::of(config, label);
  plan.model_fingerprint = "abc";
  plan.options = {{"budget", 1000}};
  return plan;
}

TEST_CASE("A plan for quantizing is written as people read it") {
  const QuantPlan plan =
      QuantPlan::of(tiny_config({}), [](const WeightId& id) -> std::string {
        if (id.role == Role::kEmbedTokens) return "keep";
        if (id.role == Role::kExpertUp && id.expert == 2) return "int3";
        return id.expert >= 0 ? "int4" : "int8";
      });
  const Json json = plan.to_json();
  REQUIRE(json["format"] == 1);
  const Json globals = {{"embed_tokens", "keep"}, {"lm_head", "int8"}};
  REQUIRE(json["globals"] == globals);
  const Json fours = {"int4", "int4", "int4", "int4"};
  const Json layer = {
      {"q_proj", "int8"},
      {"k_proj", "int8"},
      {"v_proj", "int8"},
      {"o_proj", "int8"},
      {"expert_gate", fours},
      {"expert_up", {"int4", "int4", "int3", "int4"}},
      {"expert_down", fours}};
  REQUIRE(json["layers"] == Json({layer, layer}));
}

TEST_CASE("Every matrix of every family has a place in a plan") {
  TinyModelOptions options;
  options.family =
      GENERATE("qwen3_moe", "qwen2_moe", "mixtral", "olmoe", "deepseek_v2");
  // Queries in two steps, as large models have them.
  if (options.family == "deepseek_v2") options.changes = {{"q_lora_rank", 3}};
  const model::ModelConfig config = tiny_config(options);
  const QuantPlan plan =
      QuantPlan::from_json(labelled(config).to_json(), "plan");
  REQUIRE_NOTHROW(plan.check_against(config));
  int covered = 0;
  for (const WeightId& id : model::model_weights(config)) {
    CAPTURE(label(id));
    const bool matrix =
        model::is_attention_role(id.role) || model::is_mlp_role(id.role) ||
        id.role == Role::kEmbedTokens || id.role == Role::kLmHead;
    REQUIRE(QuantPlan::covers(id.role) == matrix);
    if (!matrix) continue;
    REQUIRE(plan.scheme(id) == label(id));
    ++covered;
  }
  REQUIRE(covered > 20);
}

TEST_CASE("A plan for quantizing comes back as it was saved") {
  const TemporaryFolder folder;
  const QuantPlan plan = labelled(tiny_config({}));
  plan.save(folder.path() / "quant_plan.json");
  const QuantPlan loaded = QuantPlan::load(folder.path() / "quant_plan.json");
  REQUIRE((loaded.layers == plan.layers));
  REQUIRE((loaded.globals == plan.globals));
  REQUIRE(loaded.options == plan.options);
  REQUIRE(loaded.model_fingerprint == "abc");
}

void require_refused(const Json& json, const std::string& message) {
  REQUIRE_THROWS_AS(QuantPlan::from_json(json, "plan"), UserError);
  REQUIRE_THROWS_WITH(QuantPlan::from_json(json, "plan"), Contains(message));
}

TEST_CASE("Damaged plans for quantizing are refused") {
  Json json = labelled(tiny_config({})).to_json();
  std::string message;
  SECTION("another format") {
    json["format"] = 2;
    message = "expected 1, found 2";
  }
  SECTION("no fingerprint") {
    json.erase("model_fingerprint");
    message = "model_fingerprint";
  }
  SECTION("options that are no object") {
    json["options"] = 3;
    message = "options";
  }
  SECTION("globals that are no object") {
    json["globals"] = Json::array();
    message = "plan: globals: expected a JSON object";
  }
  SECTION("layers that are no list") {
    json["layers"] = 1;
    message = "'layers' expected a list";
  }
  SECTION("a layer that is no object") {
    json["layers"][1] = "int4";
    message = "plan: layer 1: expected a JSON object";
  }
  require_refused(json, message);
}

TEST_CASE("A plan's format is a number that is known") {
  Json json = labelled(tiny_config({})).to_json();
  for (const Json& value :
       {Json(-1), Json(1.5), Json("1"), Json(nullptr), Json(UINT64_MAX)}) {
    CAPTURE(value);
    json["format"] = value;
    require_refused(json, "'format'");
  }
}

TEST_CASE("Plans that lack something are refused, by what is missing") {
  const Json whole = labelled(tiny_config({})).to_json();
  for (const auto& [key, value] : whole.items()) {
    Json json = whole;
    json.erase(key);
    require_refused(json, "'" + key + "' is missing");
  }
}

TEST_CASE("A plan that names a role twice is refused, by the file") {
  const TemporaryFolder folder;
  const auto file = folder.path() / "quant_plan.json";
  std::string text = labelled(tiny_config({})).to_json().dump();
  const std::string name = "\"q_proj\":";
  text.insert(text.find(name), name + "\"int4\",");
  std::ofstream(file) << text;
  REQUIRE_THROWS_WITH(
      QuantPlan::load(file),
      Contains(file.string()) && Contains("duplicate JSON key 'q_proj'"));
  REQUIRE_THROWS_WITH(
      QuantPlan::load(folder.path() / "none.json"), Contains("none.json"));
}

TEST_CASE("Plans with roles or schemes that make no sense are refused") {
  Json json = labelled(tiny_config({})).to_json();
  std::string message;
  SECTION("an unknown role") {
    json["layers"][1]["w_proj"] = "int4";
    message = "plan: layer 1: 'w_proj' expected one of q_proj, k_proj";
  }
  SECTION("a role of another place") {
    json["layers"][1]["lm_head"] = "int4";
    message = "plan: layer 1: 'lm_head' expected one of q_proj";
  }
  SECTION("a role that is never quantized") {
    json["layers"][0]["router"] = "int4";
    message = "'router' expected one of";
  }
  SECTION("a layer's role among the globals") {
    json["globals"]["q_proj"] = "int4";
    message = "'q_proj' expected one of embed_tokens, lm_head";
  }
  SECTION("a scheme that is no text") {
    json["layers"][0]["q_proj"] = 4;
    message = "'q_proj' expected the name of a scheme";
  }
  SECTION("a list where there is one weight") {
    json["layers"][0]["q_proj"] = {"int4"};
    message = "'q_proj' expected the name of a scheme";
  }
  SECTION("one scheme where there are experts") {
    json["layers"][0]["expert_up"] = "int4";
    message = "'expert_up' expected a list of schemes, one an expert";
  }
  SECTION("an expert's scheme that is no text") {
    json["layers"][0]["expert_up"][2] = nullptr;
    message = "'expert_up' expected the name of a scheme";
  }
  require_refused(json, message);
}

TEST_CASE("A plan for quantizing is held against the model") {
  QuantPlan plan = labelled(tiny_config({}));
  TinyModelOptions options;
  std::string message;
  SECTION("that it fits") {
    REQUIRE_NOTHROW(plan.check_against(tiny_config(options)));
    return;
  }
  SECTION("with another number of layers") {
    options.changes = {{"num_hidden_layers", 3}};
    message = "expected 3 layers, found 2; plan again for this model";
  }
  SECTION("with fewer experts") {
    options.changes = {{"num_experts", 3}};
    message = "layer 0: expected 3 schemes for expert_gate, found 4";
  }
  SECTION("with a dense layer") {
    options.changes = {{"mlp_only_layers", {1}}};
    message = "layer 1: expected a scheme for dense_gate, found none";
  }
  SECTION("with tied embeddings") {
    options.changes = {{"tie_word_embeddings", true}};
    message = "globals: expected no scheme for lm_head, which the model lacks";
  }
  SECTION("of which it says too little") {
    plan.layers[1].erase(Role::kOProj);
    message = "layer 1: expected a scheme for o_proj, found none";
  }
  REQUIRE_THROWS_WITH(
      plan.check_against(tiny_config(options)), Contains(message));
}

TEST_CASE("A plan of another model is refused by name") {
  const TinyModel model;
  const model::ModelReader reader(model.path());
  QuantPlan plan = labelled(model.config());
  REQUIRE_THROWS_WITH(
      require_plan_of(reader, plan),
      Contains("expected a plan of " + model.path().string()) &&
          Contains(reader.fingerprint()) && Contains("another model (abc)"));
  plan.model_fingerprint = reader.fingerprint();
  REQUIRE_NOTHROW(require_plan_of(reader, plan));
  plan.layers.pop_back();
  REQUIRE_THROWS_WITH(
      require_plan_of(reader, plan), Contains("expected 2 layers, found 1"));
}

}  // namespace
}  // namespace fettle::artifact
