// SPDX-License-Identifier: Apache-2.0
// Sizes of tiny models that blocks and words divide.
#pragma once

#include <string>

#include "../artifact/tiny_model.h"

namespace fettle::testing {

// Of layers that don't all have attention.
inline void add_mixer_sizes(const std::string& family, Json& json) {
  if (family == "granitemoehybrid") {
    json.update({{"mamba_d_head", 32}, {"mamba_n_groups", 1}});
  }
  if (family == "nemotron_h") {
    json.update(
        {{"moe_intermediate_size", 32},
         {"moe_shared_expert_intermediate_size", 64},
         {"mamba_head_dim", 32},
         {"head_dim", 32}});
  }
  if (family == "qwen3_next" || family == "qwen3_5_moe_text") {
    json.update(
        {{"shared_expert_intermediate_size", 64},
         {"head_dim", 32},
         {"linear_key_head_dim", 32},
         {"linear_value_head_dim", 32}});
  }
}

// hidden 64, experts of width 32, other widths multiples of 32.
inline TinyModelOptions wide(
    const std::string& family, const Json& changes = {}) {
  TinyModelOptions options;
  options.family = family;
  options.changes = {
      {"hidden_size", 64},
      {"intermediate_size", 32},
      {"dtype", "float32"},
      {"eos_token_id", 2},
      {"bos_token_id", 1}};
  Json& json = options.changes;
  if (family == "qwen3_moe") json["norm_topk_prob"] = true;
  if (family == "qwen2_moe") json["shared_expert_intermediate_size"] = 64;
  if (family.starts_with("qwen") || family.starts_with("deepseek") ||
      family.starts_with("glm4_moe") || family == "lfm2_moe" ||
      family == "dots1" || family == "ernie4_5_moe" || family == "mellum") {
    json["moe_intermediate_size"] = 32;
  }
  if (family == "afmoe") {
    json.update(
        {{"moe_intermediate_size", 32},
         {"head_dim", 32},
         {"global_attn_every_n_layers", 4},
         {"mup_enabled", true}});
  }
  if (family == "gemma4_text") {
    json.update(
        {{"moe_intermediate_size", 32},
         {"head_dim", 32},
         {"global_head_dim", 64},
         {"num_global_key_value_heads", 1}});
  }
  if (family == "glm4_moe_lite") json["rms_norm_eps"] = 1e-6;
  if (family == "glm4_moe") json["attention_bias"] = true;
  if (family == "minimax_m2" || family == "mellum") json["head_dim"] = 32;
  if (family == "deepseek_v2" || family == "deepseek_v3" ||
      family == "glm4_moe_lite") {
    json.update(
        {{"kv_lora_rank", 32},
         {"qk_nope_head_dim", 16},
         {"qk_rope_head_dim", 16},
         {"v_head_dim", 32}});
  }
  add_mixer_sizes(family, json);
  if (!changes.is_null()) json.update(changes);
  return options;
}

}  // namespace fettle::testing
