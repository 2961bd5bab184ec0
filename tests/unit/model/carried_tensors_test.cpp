// SPDX-License-Identifier: Apache-2.0
#include "model/weights/carried_tensors.h"

#include <catch2/catch.hpp>

#include "core/error.h"
#include "model/family/text_part.h"
#include "model/weights/model_reader.h"
#include "model_folder.h"
#include "sample_config.h"

using namespace fettle;
using namespace fettle::model;
using fettle::model::testing::ModelFolder;
using fettle::model::testing::sample;
using fettle::model::testing::sample_json;

namespace {

Json nested_json(const std::string& family, const std::string& wrapper) {
  return {
      {"model_type", wrapper},
      {"text_config", sample_json(family)},
      {"vision_config", {{"hidden_size", 4}}},
      {"tie_word_embeddings", false}};
}

ModelConfig nested(const std::string& family) {
  return parse_model_config(nested_json(family, "internvl"), "config.json");
}

// Names of the carried tensors.
std::vector<std::string> carried_names(const ModelReader& reader) {
  std::vector<std::string> names;
  for (const CarriedTensor& one : reader.carried()) {
    names.push_back(one.tensor->name);
  }
  return names;
}

}  // namespace

TEST_CASE("a nested language model is read as one that lies alone") {
  for (const char* family : {"qwen3_moe", "qwen2_moe", "deepseek_v2"}) {
    INFO(family);
    const ModelConfig alone = sample(family);
    const ModelConfig part = nested(family);
    CHECK(part.family == family);
    CHECK((part.layers == alone.layers));
    CHECK(part.vocab_size == alone.vocab_size);
    CHECK(config_json(part) == nested_json(family, "internvl"));
  }
}

TEST_CASE("the outer part decides whether the head is tied") {
  Json json = nested_json("qwen3_moe", "internvl");
  json["text_config"]["tie_word_embeddings"] = true;
  CHECK_FALSE(parse_model_config(json, "c").tie_word_embeddings);
  json.erase("tie_word_embeddings");
  CHECK(parse_model_config(json, "c").tie_word_embeddings);
  json["text_config"].erase("tie_word_embeddings");
  CHECK(parse_model_config(json, "c").tie_word_embeddings);
  json["model_type"] = "llava";
  CHECK_FALSE(parse_model_config(json, "c").tie_word_embeddings);
}

TEST_CASE("a wrapper that Fettle does not know is named") {
  const Json json = nested_json("qwen3_moe", "new_omni");
  CHECK_THROWS_AS(parse_model_config(json, "c"), UserError);
  CHECK_THROWS_WITH(
      parse_model_config(json, "c"),
      Catch::Contains("model_type 'new_omni'") && Catch::Contains("internvl"));
}

TEST_CASE("a language model without a type has its wrapper's") {
  Json json = nested_json("qwen3_moe", "kimi_vl");
  json["text_config"].erase("model_type");
  const JsonObject object(json, "model", "config.json");
  CHECK(text_config(object).at("model_type") == "deepseek_v3");
  json["text_config"]["model_type"] = "kimi_k2";
  CHECK(text_config(object).at("model_type") == "deepseek_v3");
}

TEST_CASE("uniform experts are told within the language model's part") {
  ModelConfig config = nested("qwen3_moe");
  for (LayerConfig& layer : config.layers) layer.expert_widths = {4, 4, 4};
  const Json json = config_json(config);
  CHECK_FALSE(json.contains("fettle"));
  CHECK(json.at("text_config").at("num_experts") == 3);
  CHECK(json.at("text_config").at("moe_intermediate_size") == 4);
  CHECK_FALSE(json.contains("num_experts"));
  config.layers[0].expert_widths = {4, 2, 4};
  CHECK(config_json(config).contains("fettle"));
}

TEST_CASE("the type is told in both parts where both name one") {
  Json json = nested_json("qwen3_moe", "llava");
  CHECK(stated_dtype(json).empty());
  json["text_config"]["torch_dtype"] = "float16";
  CHECK(stated_dtype(json) == "float16");
  state_dtype(json, "float32");
  CHECK(json.at("dtype") == "float32");
  CHECK(json.at("text_config").at("torch_dtype") == "float32");
}

TEST_CASE("a nested model's tensors are found under each of their names") {
  for (const TensorNames& names : possible_names(nested_json("", "llava"))) {
    INFO(names.body);
    ModelConfig config = nested("qwen3_moe");
    config.names = names;
    ModelFolder folder(config);
    folder["model.visual.blocks.0.weight"] = ModelFolder::value({3, 2}, 5);
    folder["multi_modal_projector.bias"] = ModelFolder::value({3}, 6);
    const ModelReader reader(folder.write());
    CHECK((reader.config().names == names));
    CHECK(
        carried_names(reader) ==
        std::vector<std::string>{
            "model.visual.blocks.0.weight", "multi_modal_projector.bias"});
    CHECK(reader.carried_bytes() == 4 * 9);
    CHECK(reader.carried().front().kind == CarriedKind::kPart);
    CHECK(reader.carried().front().part == "model.visual.");
    const WeightId id{Role::kExpertUp, 1, 2};
    CHECK(reader.read(id).equal(folder[id]));
  }
}

TEST_CASE("the same weights have one fingerprint, nested or alone") {
  ModelFolder alone(sample("qwen3_moe", {{"tie_word_embeddings", false}}));
  ModelFolder part(nested("qwen3_moe"));
  part["visual.a"] = ModelFolder::value({3}, 5);
  CHECK(
      ModelReader(alone.write()).fingerprint() ==
      ModelReader(part.write()).fingerprint());
}

TEST_CASE("heads that predict further tokens are carried") {
  ModelFolder folder(sample("deepseek_v2", {{"num_nextn_predict_layers", 1}}));
  folder["model.layers.2.eh_proj.weight"] = ModelFolder::value({8, 16}, 1);
  folder["model.layers.2.mlp.gate.weight"] = ModelFolder::value({4, 8}, 2);
  folder["mtp.fc.weight"] = ModelFolder::value({8, 16}, 3);
  const ModelReader reader(folder.write());
  CHECK(
      carried_names(reader) == std::vector<std::string>{
                                   "model.layers.2.eh_proj.weight",
                                   "model.layers.2.mlp.gate.weight",
                                   "mtp.fc.weight"});
  CHECK(reader.carried()[0].kind == CarriedKind::kMtp);
  CHECK(reader.carried()[0].part == "model.layers.2.");
  CHECK(reader.carried()[2].part == "mtp.");
}

TEST_CASE("what nobody knows is still refused by name") {
  const auto refused = [](const ModelConfig& config, const std::string& name) {
    ModelFolder folder(config);
    folder[name] = ModelFolder::value({8}, 1);
    const auto& path = folder.write();
    CHECK_THROWS_WITH(ModelReader(path), Catch::Contains(name));
  };
  // A layer too many is no head.
  refused(sample("qwen3_moe"), "model.layers.2.mlp.gate.weight");
  refused(sample("qwen3_moe"), "model.layers.2x.eh_proj.weight");
  refused(sample("qwen3_moe"), "model.layers.2");
  refused(sample("qwen3_moe"), "model.visual.weight");
  refused(nested("qwen3_moe"), "model.unknown.weight");
}

TEST_CASE("dropped heads are out of config.json") {
  Json json = nested_json("deepseek_v2", "kimi_vl");
  json["text_config"]["num_nextn_predict_layers"] = 1;
  json["mtp_num_hidden_layers"] = 2;
  state_no_mtp(json);
  CHECK(json.at("text_config").at("num_nextn_predict_layers") == 0);
  CHECK(json.at("mtp_num_hidden_layers") == 0);
  // Some families' classes take one head for granted.
  Json silent = sample_json("deepseek_v2");
  state_no_mtp(silent);
  CHECK(silent.at("num_nextn_predict_layers") == 0);
}
