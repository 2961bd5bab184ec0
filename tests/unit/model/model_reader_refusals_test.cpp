// SPDX-License-Identifier: Apache-2.0
// Folders whose tensors are not the model's: found before a weight is read.
#include <catch2/catch.hpp>

#include "core/error.h"
#include "model/weights/model_reader.h"
#include "model_folder.h"
#include "sample_config.h"

using namespace fettle;
using namespace fettle::model;
using fettle::model::testing::ModelFolder;
using fettle::model::testing::sample;

namespace {

constexpr const char* kExperts = "model.layers.0.mlp.experts.";
const std::string kUp = "model.layers.0.mlp.experts.1.up_proj.weight";

void refused(ModelFolder& folder, const std::string& text) {
  const auto path = folder.write();
  CHECK_THROWS_AS(ModelReader(path), UserError);
  CHECK_THROWS_WITH(ModelReader(path), Catch::Contains(text));
}

}  // namespace

TEST_CASE("a missing tensor is named") {
  ModelFolder folder(sample("olmoe"));
  folder.erase(kUp);
  refused(folder, kUp + ": is missing");
  ModelFolder headless(sample("olmoe"));
  headless.erase("lm_head.weight");
  refused(headless, "lm_head.weight: is missing");
}

TEST_CASE("a missing tensor's other name is told") {
  ModelFolder folder(sample("olmoe"));
  folder["base." + kUp] = folder[kUp];
  folder.erase(kUp);
  refused(folder, kUp + ": is missing, but 'base." + kUp + "' is there");
}

TEST_CASE("a bare model without a head says so") {
  ModelFolder folder(sample("olmoe"));
  folder.rename([](std::string name) {
    return name.starts_with("model.") ? name.substr(6) : name;
  });
  CHECK_NOTHROW(ModelReader(folder.write()));
  folder.erase("lm_head.weight");
  refused(folder, "lm_head.weight: is missing: the weights were saved without");
}

TEST_CASE("another head beside tied embeddings is refused by its values") {
  ModelFolder folder(sample("olmoe", {{"tie_word_embeddings", true}}));
  folder["lm_head.weight"] = folder["model.embed_tokens.weight"].clone();
  CHECK_NOTHROW(ModelReader(folder.write()).check_tied_head());
  folder["lm_head.weight"][3][3] = 77.0;
  const ModelReader reader(folder.write());
  CHECK_THROWS_WITH(
      reader.check_tied_head(), Catch::Contains("differs from the embeddings"));
}

TEST_CASE("a wrong shape is told with the expected one") {
  ModelFolder folder(sample("olmoe"));
  folder[kUp] = at::zeros({5, 8});
  refused(folder, "expected shape [6, 8] by config.json, found [5, 8]");
  ModelFolder flat(sample("olmoe"));
  flat["model.norm.weight"] = at::zeros({1, 8});
  refused(flat, "expected shape [8] by config.json, found [1, 8]");
}

TEST_CASE("fp8 that config.json says nothing of is refused by name") {
  ModelFolder folder(sample("olmoe"));
  folder[kUp] = folder[kUp].to(at::kFloat8_e4m3fn);
  refused(folder, "F8_E4M3 (fp8)");
}

TEST_CASE("a tensor that is no weight of the model is named") {
  ModelFolder folder(sample("olmoe"));
  folder["model.layers.0.self_attn.q_proj.bias"] = at::zeros({8});
  refused(folder, "model.layers.0.self_attn.q_proj.bias: is no weight");
  ModelFolder deeper(sample("olmoe"));
  deeper["model.layers.2.input_layernorm.weight"] = at::zeros({8});
  refused(deeper, "model.layers.2.input_layernorm.weight: is no weight");
}

TEST_CASE("tensors that carry nothing are passed over") {
  ModelFolder folder(sample("olmoe"));
  folder["model.layers.0.self_attn.rotary_emb.inv_freq"] = at::zeros({2});
  folder["model.layers.0.mlp.shared_experts.up_proj.weight"] =
      at::zeros({0, 8});
  folder["v_head.summary.weight"] = at::zeros({1, 8});
  folder["score.weight"] = at::zeros({2, 8});
  folder["model.layers.1.self_attn.k_proj.k_scale"] = at::ones({1});
  folder["model.layers.1.self_attn.attn.v_scale"] = at::ones({1});
  const ModelReader reader(folder.write());
  const std::vector<std::string> left_out = {
      "model.layers.0.self_attn.rotary_emb.inv_freq",
      "model.layers.1.self_attn.attn.v_scale",
      "model.layers.1.self_attn.k_proj.k_scale",
      "score.weight",
      "v_head.summary.weight"};
  CHECK(reader.left_out() == left_out);
}

TEST_CASE("experts stored twice or misshapen in a stack") {
  ModelFolder twice(sample("olmoe"));
  const at::Tensor gate =
      twice["model.layers.0.mlp.experts.0.gate_proj.weight"];
  twice.fuse(0, kExperts);
  twice["model.layers.0.mlp.experts.0.gate_proj.weight"] = gate;
  refused(twice, "is also stored as");

  ModelFolder misshapen(sample("olmoe"));
  misshapen.fuse(0, kExperts);
  misshapen[std::string(kExperts) + "down_proj"] = at::zeros({4, 6, 9});
  refused(misshapen, "expected shape [4, 8, 6] by config.json");
}

TEST_CASE("a ragged layer's stack is refused") {
  ModelConfig config = sample("olmoe");
  config.layers[0].expert_widths = {6, 6, 6, 5};
  ModelFolder folder(config);
  for (std::int64_t e = 0; e < 4; ++e) {
    for (const char* part : {".gate_proj", ".up_proj", ".down_proj"}) {
      folder.erase(kExperts + std::to_string(e) + part + ".weight");
    }
  }
  folder[std::string(kExperts) + "gate_up_proj"] = at::zeros({4, 12, 8});
  folder[std::string(kExperts) + "down_proj"] = at::zeros({4, 8, 6});
  refused(folder, "stacks experts that differ in width");
}

TEST_CASE("Mixtral's router under both names at once is refused") {
  ModelFolder folder(sample("mixtral"));
  folder["model.layers.0.mlp.gate.weight"] =
      folder["model.layers.0.block_sparse_moe.gate.weight"];
  refused(folder, "is also stored as model.layers.0.block_sparse_moe");
}
