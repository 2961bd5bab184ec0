// SPDX-License-Identifier: Apache-2.0
#include "model/family/weight_roles.h"

#include <algorithm>
#include <array>

#include "core/error.h"

namespace fettle::model {
namespace {

using Shape = std::vector<std::int64_t>;
using Model = const ModelConfig&;
using Layer = const LayerConfig&;
using Width = std::int64_t;

bool always(Model, Layer) { return true; }
bool is_sparse(Model, Layer layer) { return layer.sparse; }
bool has_dense(Model, Layer layer) { return layer.has_dense(); }
bool is_side_by_side(Model, Layer layer) {
  return layer.has_dense_beside_experts();
}
bool has_out_norms(Model config, Layer) { return config.block.out_norms; }
bool has_shared(Model, Layer layer) {
  return layer.sparse && layer.shared_width > 0;
}

bool has_expert_bias(Model config, Layer layer) {
  return layer.sparse && config.expert_bias;
}

bool is_mla(Model config, Layer layer) {
  return config.attention_of(layer).kind == AttentionKind::kMla;
}
bool is_gqa(Model config, Layer layer) { return !is_mla(config, layer); }
bool has_value(Model config, Layer layer) {
  return is_gqa(config, layer) && !config.attention_of(layer).k_as_v;
}
bool has_query_latent(Model config, Layer layer) {
  return is_mla(config, layer) && config.attention_of(layer).q_lora_rank > 0;
}
bool has_whole_query(Model config, Layer layer) {
  return !has_query_latent(config, layer);
}
bool has_qkv_bias(Model config, Layer layer) {
  return is_gqa(config, layer) && config.attention_of(layer).qkv_bias;
}
bool has_v_bias(Model config, Layer layer) {
  return has_value(config, layer) && config.attention_of(layer).qkv_bias;
}
bool has_o_bias(Model config, Layer layer) {
  return config.attention_of(layer).o_bias;
}
bool has_qk_norm(Model config, Layer layer) {
  return config.attention_of(layer).qk_norm != QkNorm::kNone;
}

Shape hidden(Model config, Layer, Width) { return {config.hidden_size}; }
Shape vocabulary(Model config, Layer, Width) {
  return {config.vocab_size, config.hidden_size};
}

std::int64_t query_size(const AttentionConfig& a) {
  return a.heads * a.head_dim;
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
Shape one_per_expert(Model, Layer layer, Width) {
  return {layer.num_experts()};
}
Shape one_per_neuron(Model, Layer, Width w) { return {w}; }
Shape row_per_expert(Model config, Layer layer, Width) {
  return {layer.num_experts(), config.hidden_size};
}

Shape into(Model config, Width width) { return {width, config.hidden_size}; }
Shape out_of(Model config, Width width) { return {config.hidden_size, width}; }
Shape expert_in(Model config, Layer, Width w) { return into(config, w); }
Shape expert_out(Model config, Layer, Width w) { return out_of(config, w); }
Shape shared_in(Model config, Layer layer, Width) {
  return into(config, layer.shared_width);
}
Shape shared_out(Model config, Layer layer, Width) {
  return out_of(config, layer.shared_width);
}
Shape dense_in(Model config, Layer layer, Width) {
  return into(config, layer.dense_width);
}
Shape dense_out(Model config, Layer layer, Width) {
  return out_of(config, layer.dense_width);
}

using enum Role;
using enum RoleScope;
using enum RoleKind;

constexpr auto kRoles = std::to_array<RoleInfo>({
    {kEmbedTokens,
     "embed_tokens",
     kModel,
     kMatrix,
     kEmbedTokens,
     always,
     vocabulary},
    {kFinalNorm, "final_norm", kModel, kVector, kFinalNorm, always, hidden},
    {kLmHead,
     "lm_head",
     kModel,
     kMatrix,
     kLmHead,
     [](Model config, Layer) { return !config.tie_word_embeddings; },
     vocabulary},
    {kInputNorm, "input_norm", kLayer, kVector, kInputNorm, always, hidden},
    {kAttentionOutNorm,
     "attention_out_norm",
     kLayer,
     kVector,
     kAttentionOutNorm,
     has_out_norms,
     hidden},
    {kPostAttentionNorm,
     "post_attention_norm",
     kLayer,
     kVector,
     kPostAttentionNorm,
     always,
     hidden},
    {kMlpOutNorm,
     "mlp_out_norm",
     kLayer,
     kVector,
     kMlpOutNorm,
     has_out_norms,
     hidden},
    {kDenseOutNorm,
     "dense_out_norm",
     kLayer,
     kVector,
     kDenseOutNorm,
     is_side_by_side,
     hidden},
    {kExpertsNorm,
     "experts_norm",
     kLayer,
     kVector,
     kExpertsNorm,
     is_side_by_side,
     hidden},
    {kExpertsOutNorm,
     "experts_out_norm",
     kLayer,
     kVector,
     kExpertsOutNorm,
     is_side_by_side,
     hidden},
    {kLayerScalar,
     "layer_scalar",
     kLayer,
     kVector,
     kLayerScalar,
     [](Model config, Layer) { return config.block.layer_scalar; },
     [](Model, Layer, Width) { return Shape{1}; }},
    {kQProj,
     "q_proj",
     kLayer,
     kMatrix,
     kQProj,
     has_whole_query,
     [](Model config, Layer layer, Width) {
       return Shape{query_size(config.attention_of(layer)), config.hidden_size};
     }},
    {kQBias,
     "q_bias",
     kLayer,
     kVector,
     kQBias,
     has_qkv_bias,
     [](Model config, Layer layer, Width) {
       return Shape{query_size(config.attention_of(layer))};
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
     always,
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
       return config.attention_of(layer).gate == OutputGate::kOwnProjection;
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
     [](Model config, Layer layer) { return config.attention_of(layer).sinks; },
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
    {kRouter, "router", kRows, kDecision, kRouter, is_sparse, row_per_expert},
    {kRouterCorrection,
     "router_correction",
     kRows,
     kDecision,
     kRouterCorrection,
     [](Model config, Layer layer) {
       return layer.sparse && config.router.correction_bias;
     },
     one_per_expert},
    {kRouterBias,
     "router_bias",
     kRows,
     kDecision,
     kRouterBias,
     [](Model, Layer layer) { return layer.sparse && layer.router_bias; },
     one_per_expert},
    {kRouterNorm,
     "router_norm",
     kLayer,
     kDecision,
     kRouterNorm,
     [](Model config, Layer layer) {
       return layer.sparse && config.router.own_norm;
     },
     hidden},
    {kExpertScale,
     "expert_scale",
     kRows,
     kDecision,
     kExpertScale,
     [](Model config, Layer layer) {
       return layer.sparse && config.router.expert_scales;
     },
     one_per_expert},
    {kExpertGate,
     "expert_gate",
     kExpert,
     kMatrix,
     kExpertGate,
     is_sparse,
     expert_in},
    {kExpertUp,
     "expert_up",
     kExpert,
     kMatrix,
     kExpertGate,
     is_sparse,
     expert_in},
    {kExpertDown,
     "expert_down",
     kExpert,
     kMatrix,
     kExpertDown,
     is_sparse,
     expert_out},
    {kExpertGateBias,
     "expert_gate_bias",
     kExpert,
     kVector,
     kExpertGateBias,
     has_expert_bias,
     one_per_neuron},
    {kExpertUpBias,
     "expert_up_bias",
     kExpert,
     kVector,
     kExpertUpBias,
     has_expert_bias,
     one_per_neuron},
    {kExpertConstant,
     "expert_constant",
     kRows,
     kVector,
     kExpertConstant,
     [](Model, Layer layer) { return layer.sparse && layer.has_constants; },
     row_per_expert},
    {kSharedGate,
     "shared_gate",
     kLayer,
     kMatrix,
     kSharedGate,
     has_shared,
     shared_in},
    {kSharedUp,
     "shared_up",
     kLayer,
     kMatrix,
     kSharedGate,
     has_shared,
     shared_in},
    {kSharedDown,
     "shared_down",
     kLayer,
     kMatrix,
     kSharedDown,
     has_shared,
     shared_out},
    {kSharedRouter,
     "shared_router",
     kLayer,
     kVector,
     kSharedRouter,
     [](Model config, Layer layer) {
       return has_shared(config, layer) &&
              config.shared_expert == SharedExpert::kSigmoidGated;
     },
     [](Model config, Layer, Width) { return Shape{1, config.hidden_size}; }},
    {kDenseGate,
     "dense_gate",
     kLayer,
     kMatrix,
     kDenseGate,
     has_dense,
     dense_in},
    {kDenseUp, "dense_up", kLayer, kMatrix, kDenseGate, has_dense, dense_in},
    {kDenseDown,
     "dense_down",
     kLayer,
     kMatrix,
     kDenseDown,
     has_dense,
     dense_out},
});

constexpr bool in_order() {
  for (std::size_t i = 0; i < kRoles.size(); ++i) {
    if (static_cast<std::size_t>(kRoles[i].role) != i) return false;
  }
  return kRoles.size() == static_cast<std::size_t>(kDenseDown) + 1;
}
static_assert(in_order(), "a row for each role, in their order");

}  // namespace

const RoleInfo& role_info(Role role) {
  const auto place = static_cast<std::size_t>(role);
  FETTLE_ASSERT(place < kRoles.size());
  return kRoles[place];
}

std::span<const RoleInfo> role_infos() { return kRoles; }

std::string_view role_name(Role role) { return role_info(role).name; }

}  // namespace fettle::model
