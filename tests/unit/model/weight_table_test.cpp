// SPDX-License-Identifier: Apache-2.0
// Names, order, shapes and counts; the released models' sizes are known.
#include "model/family/weight_table.h"

#include <catch2/catch.hpp>

#include <set>

#include "core/error.h"
#include "sample_config.h"

using namespace fettle;
using namespace fettle::model;
using fettle::model::testing::sample;

namespace {

using Names = std::vector<std::string>;
using Shape = std::vector<std::int64_t>;

Names names(const ModelConfig& config, const std::vector<WeightId>& ids) {
  Names result;
  for (const WeightId& id : ids) result.push_back(weight_name(config, id));
  return result;
}

ModelConfig released(const std::string& family, const Json& config) {
  Json json = config;
  json["model_type"] = family;
  return parse_model_config(json, "config.json");
}

}  // namespace

TEST_CASE("what Fettle adds to families is marked as its own") {
  for (const Family& family : families()) {
    for (const WeightRow& row : family.weights) {
      const bool added = row.name.ends_with(".logit_bias") ||
                         row.name.ends_with("experts.constant");
      INFO(family.model_type << " " << row.name);
      CHECK(row.own == added);
    }
  }
}

TEST_CASE("weights come in canonical order under Hugging Face's names") {
  const ModelConfig config = sample("mixtral", {{"num_local_experts", 2}});
  CHECK(
      names(config, layer_weights(config, 1)) ==
      Names{
          "model.layers.1.input_layernorm.weight",
          "model.layers.1.self_attn.q_proj.weight",
          "model.layers.1.self_attn.k_proj.weight",
          "model.layers.1.self_attn.v_proj.weight",
          "model.layers.1.self_attn.o_proj.weight",
          "model.layers.1.post_attention_layernorm.weight",
          "model.layers.1.block_sparse_moe.gate.weight",
          "model.layers.1.block_sparse_moe.experts.0.w1.weight",
          "model.layers.1.block_sparse_moe.experts.1.w1.weight",
          "model.layers.1.block_sparse_moe.experts.0.w3.weight",
          "model.layers.1.block_sparse_moe.experts.1.w3.weight",
          "model.layers.1.block_sparse_moe.experts.0.w2.weight",
          "model.layers.1.block_sparse_moe.experts.1.w2.weight"});
  const auto all = model_weights(config);
  CHECK(all.size() == 13 * 2 + 3);
  CHECK(weight_name(config, all.front()) == "model.embed_tokens.weight");
  CHECK(weight_name(config, all[all.size() - 2]) == "model.norm.weight");
  CHECK(weight_name(config, all.back()) == "lm_head.weight");
  const ModelConfig tied = sample("mixtral", {{"tie_word_embeddings", true}});
  CHECK(model_weights(tied).back().role == Role::kFinalNorm);
}

TEST_CASE("names are unique and every role has one") {
  for (const Family& family : families()) {
    ModelConfig config = sample(std::string(family.model_type));
    config.layers[1].has_constants = true;
    config.layers[1].router_bias = true;
    const auto all = names(config, model_weights(config));
    CHECK(std::set<std::string>(all.begin(), all.end()).size() == all.size());
    for (const WeightRow& row : family.weights) {
      CHECK_FALSE(role_name(row.role).empty());
      CHECK((!is_expert_role(row.role) || !row.fused.empty()));
      CHECK(
          (is_mlp_role(row.role) || is_expert_bias(row.role) ||
           row.fused.empty()));
    }
  }
  CHECK(role_name(Role::kExpertDown) == "expert_down");
}

TEST_CASE("options decide which weights there are") {
  const auto has = [](const ModelConfig& config, const std::string& name) {
    const auto all = names(config, model_weights(config));
    return std::find(all.begin(), all.end(), name) != all.end();
  };
  const std::string attention = "model.layers.1.self_attn.";
  CHECK_FALSE(has(sample("qwen3_moe"), attention + "q_proj.bias"));
  const ModelConfig biased = sample("qwen3_moe", {{"attention_bias", true}});
  CHECK(has(biased, attention + "q_proj.bias"));
  CHECK(has(biased, attention + "o_proj.bias"));
  CHECK(has(sample("qwen2_moe"), attention + "v_proj.bias"));
  CHECK(
      has(sample("qwen2_moe"), "model.layers.1.mlp.shared_expert_gate.weight"));
  const ModelConfig plain = sample("deepseek_v2");
  CHECK(has(plain, attention + "q_proj.weight"));
  CHECK(has(plain, "model.layers.0.mlp.up_proj.weight"));
  CHECK(has(plain, "model.layers.1.mlp.shared_experts.up_proj.weight"));
  CHECK_FALSE(has(plain, "model.layers.1.mlp.up_proj.weight"));
  const ModelConfig low_rank =
      sample("deepseek_v2", {{"q_lora_rank", 5}, {"attention_bias", true}});
  CHECK_FALSE(has(low_rank, attention + "q_proj.weight"));
  CHECK(has(low_rank, attention + "q_a_proj.bias"));
  CHECK(has(low_rank, attention + "kv_a_proj_with_mqa.bias"));
  CHECK(has(low_rank, attention + "o_proj.bias"));
  const std::string correction =
      "model.layers.1.mlp.gate.e_score_correction_bias";
  CHECK(has(sample("deepseek_v3"), correction));
  CHECK_FALSE(has(plain, correction));
  CHECK(has(sample("dots1"), attention + "k_norm.weight"));
  CHECK_FALSE(has(sample("glm4_moe"), attention + "k_norm.weight"));
}

TEST_CASE("ERNIE stores its correction as a matrix of one row") {
  const WeightId id{Role::kRouterCorrection, 1};
  CHECK(weight_shape(sample("ernie4_5_moe"), id) == Shape{4});
  CHECK(stored_shape(sample("ernie4_5_moe"), id) == Shape{1, 4});
  CHECK(stored_shape(sample("glm4_moe"), id) == Shape{4});
}

TEST_CASE("shapes follow each expert's own width") {
  ModelConfig config = sample("olmoe", {{"num_key_value_heads", 1}});
  config.layers[0].expert_widths = {6, 0, 3};
  config.layers[0].has_constants = true;
  config.layers[0].router_bias = true;
  CHECK(weight_shape(config, {Role::kRouterBias, 0}) == Shape{3});
  CHECK(weight_shape(config, {Role::kExpertGate, 0, 0}) == Shape{6, 8});
  CHECK(weight_shape(config, {Role::kExpertUp, 0, 1}) == Shape{0, 8});
  CHECK(weight_shape(config, {Role::kExpertDown, 0, 2}) == Shape{8, 3});
  CHECK(weight_numel(config, {Role::kExpertUp, 0, 1}) == 0);
  CHECK(weight_shape(config, {Role::kExpertConstant, 0}) == Shape{3, 8});
  CHECK(weight_shape(config, {Role::kRouter, 0}) == Shape{3, 8});
  CHECK(weight_shape(config, {Role::kRouter, 1}) == Shape{4, 8});
  CHECK(weight_shape(config, {Role::kKNorm, 0}) == Shape{4});
  CHECK(weight_shape(config, {Role::kQNorm, 0}) == Shape{8});
  const ModelConfig mla = sample("deepseek_v2", {{"q_lora_rank", 5}});
  CHECK(weight_shape(mla, {Role::kQBProj, 0}) == Shape{12, 5});
  CHECK(weight_shape(mla, {Role::kKvAProj, 0}) == Shape{6, 8});
  CHECK(weight_shape(mla, {Role::kKvBProj, 0}) == Shape{14, 4});
  CHECK(weight_shape(mla, {Role::kOProj, 0}) == Shape{8, 6});
}

// From the index files of the released checkpoints: their total size in bytes,
// two a parameter.
TEST_CASE("released models have the parameters that their checkpoints have") {
  CHECK(
      released("mixtral", {{"num_hidden_layers", 32}}).parameters() ==
      93'405'585'408 / 2);
  CHECK(
      released("qwen3_moe", {{"num_hidden_layers", 48}, {"head_dim", 128}})
          .parameters() == 61'064'245'248 / 2);
  const ModelConfig lite = released(
      "deepseek_v2",
      {{"hidden_size", 2048},
       {"intermediate_size", 10944},
       {"moe_intermediate_size", 1408},
       {"num_hidden_layers", 27},
       {"num_attention_heads", 16},
       {"num_key_value_heads", 16},
       {"n_routed_experts", 64},
       {"n_shared_experts", 2},
       {"num_experts_per_tok", 6},
       {"first_k_dense_replace", 1},
       {"q_lora_rank", nullptr}});
  CHECK(lite.parameters() == 31'412'968'448 / 2);
  CHECK(
      released("olmoe", {{"intermediate_size", 1024}}).parameters() ==
      13'838'323'712 / 2);
  CHECK(
      released("qwen2_moe", Json::object()).parameters() == 28'631'568'384 / 2);
}

TEST_CASE("active parameters count the experts at work") {
  ModelConfig config = sample("mixtral");
  const std::int64_t expert = 3 * 6 * 8;
  CHECK(config.parameters() - config.active_parameters() == 2 * 2 * expert);
  config.layers[0].expert_widths = {6, 0, 0, 6};  // mean 3
  CHECK(
      config.parameters() - config.active_parameters() ==
      (2 * 6 - 2 * 3) * 3 * 8 + 2 * expert);
  CHECK(
      released("mixtral", Json::object()).active_parameters() ==
      12'879'925'248);
}
