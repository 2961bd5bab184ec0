// SPDX-License-Identifier: Apache-2.0
// Small configurations of each family for tests.
#pragma once

#include <string>

#include "core/json.h"
#include "model/family/model_config.h"
#include "sample_mixers.h"

namespace fettle::model::testing {

inline void add_own_keys(const std::string& family, Json& json) {
  if (family == "ernie4_5_moe") {
    json.update(
        {{"moe_intermediate_size", 6},
         {"intermediate_size", 10},
         {"moe_num_experts", 4},
         {"moe_num_shared_experts", 2}});
  }
  if (family == "afmoe") {
    json.update(
        {{"moe_intermediate_size", 6},
         {"intermediate_size", 10},
         {"num_experts", 4},
         {"head_dim", 4},
         {"global_attn_every_n_layers", 2}});
  }
  if (family == "gemma4_text") {
    json.update(
        {{"moe_intermediate_size", 6},
         {"intermediate_size", 10},
         {"num_experts", 4},
         {"top_k_experts", 2},
         {"head_dim", 4},
         {"global_head_dim", 6},
         {"attention_k_eq_v", true},
         {"layer_types", {"sliding_attention", "full_attention"}},
         {"enable_moe_block", true},
         {"hidden_size_per_layer_input", 0}});
    json.erase("num_experts_per_tok");
    json.erase("hidden_act");
  }
  if (family == "lfm2_moe") json.update(lfm2_changes());
  if (family == "granitemoehybrid") json.update(mamba_changes());
  if (family == "nemotron_h") json.update(nemotron_changes());
  if (family == "qwen3_next" || family == "qwen3_5_moe_text") {
    json.update(hybrid_changes());
  }
}

// hidden 8, 2 layers, 4 experts of width 6, top-2; families differ in the rest.
inline Json sample_json(const std::string& family) {
  Json json = {
      {"model_type", family},
      {"vocab_size", 11},
      {"hidden_size", 8},
      {"num_hidden_layers", 2},
      {"num_attention_heads", 2},
      {"num_key_value_heads", 2},
      {"max_position_embeddings", 64},
      {"num_experts_per_tok", 2},
      {"intermediate_size", 6},
      {"hidden_act", "silu"}};
  if (family == "qwen3_moe" || family == "qwen2_moe" || family == "mellum" ||
      family == "qwen3_vl_moe_text") {
    json["moe_intermediate_size"] = 6;
    json["intermediate_size"] = 10;
    json["num_experts"] = 4;
  }
  if (family == "qwen2_moe") json["shared_expert_intermediate_size"] = 5;
  const bool gpt_oss = family == "gpt_oss";
  if (family == "mixtral" || family.starts_with("granitemoe") || gpt_oss) {
    json["num_local_experts"] = 4;
  }
  if (gpt_oss) json["sliding_window"] = 3;
  if (family == "granitemoeshared") json["shared_intermediate_size"] = 5;
  if (family == "olmoe") json["num_experts"] = 4;
  const bool latent = family == "deepseek_v2" || family == "deepseek_v3" ||
                      family == "glm4_moe_lite";
  if (latent || family == "dots1" || family == "glm4_moe" ||
      family == "glm4v_moe_text") {
    json.update(
        {{"moe_intermediate_size", 6},
         {"intermediate_size", 10},
         {"n_routed_experts", 4},
         {"n_shared_experts", 2},
         {"first_k_dense_replace", 1}});
  }
  if (latent) {
    json.update(
        {{"kv_lora_rank", 4},
         {"q_lora_rank", nullptr},
         {"qk_nope_head_dim", 4},
         {"qk_rope_head_dim", 2},
         {"v_head_dim", 3}});
  }
  if (family == "minimax_m2") {
    json.update({{"num_local_experts", 4}, {"head_dim", 6}});
  }
  if (family == "mellum" || gpt_oss) json["head_dim"] = 4;
  add_own_keys(family, json);
  if (family == "deepseek_v3") json.update({{"n_group", 1}, {"topk_group", 1}});
  return json;
}

// The sample with `changes` merged in.
inline ModelConfig sample(const std::string& family, const Json& changes = {}) {
  Json json = sample_json(family);
  if (!changes.is_null()) json.update(changes);
  return parse_model_config(json, "config.json");
}

}  // namespace fettle::model::testing
