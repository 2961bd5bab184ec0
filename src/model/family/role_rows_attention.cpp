// SPDX-License-Identifier: Apache-2.0
#include <array>

#include "model/family/role_rows.h"

namespace fettle::model {

using namespace role_rows;

namespace {

bool has_attention(Model, Layer layer) {
  return layer.mixer == MixerKind::kAttention;
}
bool is_mla(Model config, Layer layer) {
  return has_attention(config, layer) &&
         config.attention_of(layer).kind == AttentionKind::kMla;
}
bool is_gqa(Model config, Layer layer) {
  return has_attention(config, layer) && !is_mla(config, layer);
}
bool has_value(Model config, Layer layer) {
  return is_gqa(config, layer) && !config.attention_of(layer).k_as_v;
}
bool has_query_latent(Model config, Layer layer) {
  return is_mla(config, layer) && config.attention_of(layer).q_lora_rank > 0;
}
bool has_whole_query(Model config, Layer layer) {
  return has_attention(config, layer) && !has_query_latent(config, layer);
}
bool has_qkv_bias(Model config, Layer layer) {
  return is_gqa(config, layer) && config.attention_of(layer).qkv_bias;
}
bool has_v_bias(Model config, Layer layer) {
  return has_value(config, layer) && config.attention_of(layer).qkv_bias;
}
bool has_o_bias(Model config, Layer layer) {
  return has_attention(config, layer) && config.attention_of(layer).o_bias;
}
bool has_qk_norm(Model config, Layer layer) {
  return has_attention(config, layer) &&
         config.attention_of(layer).qk_norm != QkNorm::kNone;
}

std::int64_t query_size(const AttentionConfig& a) {
  return a.heads * a.head_dim;
}
// Rows of q_proj.
std::int64_t query_rows(const AttentionConfig& a) {
  return query_size(a) * (a.gate == OutputGate::kInQuery ? 2 : 1);
}
std::int64_t key_size(const AttentionConfig& a) {
  return a.kv_heads * a.head_dim;
}
std::int64_t norm_size(const AttentionConfig& a, std::int64_t all_heads) {
  return a.qk_norm == QkNorm::kHead ? a.head_dim : all_heads;
}
std::int64_t latent_size(const AttentionConfig& a) {
  return a.kv_lora_rank + a.rope.dim;
}

Shape key_rows(Model config, Layer layer, Width) {
  return {key_size(config.attention_of(layer)), config.hidden_size};
}
Shape key_vector(Model config, Layer layer, Width) {
  return {key_size(config.attention_of(layer))};
}
Shape query_latent(Model config, Layer layer, Width) {
  return {config.attention_of(layer).q_lora_rank};
}

using enum Role;
using enum RoleScope;
using enum RoleKind;

constexpr auto kAttentionRows = std::to_array<RoleInfo>({
    {kQProj,
     "q_proj",
     kLayer,
     kMatrix,
     kQProj,
     has_whole_query,
     [](Model config, Layer layer, Width) {
       return Shape{query_rows(config.attention_of(layer)), config.hidden_size};
     }},
    {kQBias,
     "q_bias",
     kLayer,
     kVector,
     kQBias,
     has_qkv_bias,
     [](Model config, Layer layer, Width) {
       return Shape{query_rows(config.attention_of(layer))};
     }},
    {kKProj, "k_proj", kLayer, kMatrix, kQProj, is_gqa, key_rows},
    {kKBias, "k_bias", kLayer, kVector, kKBias, has_qkv_bias, key_vector},
    {kVProj, "v_proj", kLayer, kMatrix, kQProj, has_value, key_rows},
    {kVBias, "v_bias", kLayer, kVector, kVBias, has_v_bias, key_vector},
    {kOProj,
     "o_proj",
     kLayer,
     kMatrix,
     kOProj,
     has_attention,
     [](Model config, Layer layer, Width) {
       const AttentionConfig& a = config.attention_of(layer);
       return Shape{config.hidden_size, a.heads * a.v_head_dim};
     }},
    {kOBias, "o_bias", kLayer, kVector, kOBias, has_o_bias, hidden},
    {kQNorm,
     "q_norm",
     kLayer,
     kVector,
     kQNorm,
     has_qk_norm,
     [](Model config, Layer layer, Width) {
       return Shape{norm_size(
           config.attention_of(layer), query_size(config.attention_of(layer)))};
     }},
    {kKNorm,
     "k_norm",
     kLayer,
     kVector,
     kKNorm,
     has_qk_norm,
     [](Model config, Layer layer, Width) {
       return Shape{norm_size(
           config.attention_of(layer), key_size(config.attention_of(layer)))};
     }},
    {kAttentionGate,
     "attention_gate",
     kLayer,
     kMatrix,
     kQProj,
     [](Model config, Layer layer) {
       return has_attention(config, layer) &&
              config.attention_of(layer).gate == OutputGate::kOwnProjection;
     },
     [](Model config, Layer layer, Width) {
       const AttentionConfig& a = config.attention_of(layer);
       return Shape{a.heads * a.v_head_dim, config.hidden_size};
     }},
    {kSinks,
     "sinks",
     kLayer,
     kVector,
     kSinks,
     [](Model config, Layer layer) {
       return has_attention(config, layer) && config.attention_of(layer).sinks;
     },
     [](Model config, Layer layer, Width) {
       return Shape{config.attention_of(layer).heads};
     }},
    {kQAProj,
     "q_a_proj",
     kLayer,
     kMatrix,
     kQAProj,
     has_query_latent,
     [](Model config, Layer layer, Width) {
       return Shape{config.attention_of(layer).q_lora_rank, config.hidden_size};
     }},
    {kQABias,
     "q_a_bias",
     kLayer,
     kVector,
     kQABias,
     [](Model config, Layer layer) {
       return has_query_latent(config, layer) &&
              config.attention_of(layer).qkv_bias;
     },
     query_latent},
    {kQANorm,
     "q_a_norm",
     kLayer,
     kVector,
     kQANorm,
     has_query_latent,
     query_latent},
    {kQBProj,
     "q_b_proj",
     kLayer,
     kMatrix,
     kQBProj,
     has_query_latent,
     [](Model config, Layer layer, Width) {
       return Shape{
           query_size(config.attention_of(layer)),
           config.attention_of(layer).q_lora_rank};
     }},
    {kKvAProj,
     "kv_a_proj",
     kLayer,
     kMatrix,
     kKvAProj,
     is_mla,
     [](Model config, Layer layer, Width) {
       return Shape{
           latent_size(config.attention_of(layer)), config.hidden_size};
     }},
    {kKvABias,
     "kv_a_bias",
     kLayer,
     kVector,
     kKvABias,
     [](Model config, Layer layer) {
       return is_mla(config, layer) && config.attention_of(layer).qkv_bias;
     },
     [](Model config, Layer layer, Width) {
       return Shape{latent_size(config.attention_of(layer))};
     }},
    {kKvANorm,
     "kv_a_norm",
     kLayer,
     kVector,
     kKvANorm,
     is_mla,
     [](Model config, Layer layer, Width) {
       return Shape{config.attention_of(layer).kv_lora_rank};
     }},
    {kKvBProj,
     "kv_b_proj",
     kLayer,
     kMatrix,
     kKvBProj,
     is_mla,
     [](Model config, Layer layer, Width) {
       const AttentionConfig& a = config.attention_of(layer);
       return Shape{
           a.heads * (a.qk_nope_head_dim + a.v_head_dim), a.kv_lora_rank};
     }},
});

}  // namespace

std::span<const RoleInfo> attention_role_rows() { return kAttentionRows; }

}  // namespace fettle::model
