// SPDX-License-Identifier: Apache-2.0
// Rows that families have alike, by the parts of a model. A family's table
// joins some of them; which of its rows a model has, its options say.
#pragma once

#include <array>
#include <cstddef>

#include "model/family/weight_table.h"

namespace fettle::model {

inline constexpr WeightRow kFirstRows[] = {
    {Role::kEmbedTokens, "model.embed_tokens.weight"},
    {Role::kInputNorm, "model.layers.{l}.input_layernorm.weight"},
};

// Grouped-query attention.
inline constexpr WeightRow kGroupedRows[] = {
    {Role::kQProj, "model.layers.{l}.self_attn.q_proj.weight"},
    {Role::kQBias, "model.layers.{l}.self_attn.q_proj.bias"},
    {Role::kKProj, "model.layers.{l}.self_attn.k_proj.weight"},
    {Role::kKBias, "model.layers.{l}.self_attn.k_proj.bias"},
    {Role::kVProj, "model.layers.{l}.self_attn.v_proj.weight"},
    {Role::kVBias, "model.layers.{l}.self_attn.v_proj.bias"},
    {Role::kOProj, "model.layers.{l}.self_attn.o_proj.weight"},
    {Role::kOBias, "model.layers.{l}.self_attn.o_proj.bias"},
    {Role::kQNorm, "model.layers.{l}.self_attn.q_norm.weight"},
    {Role::kKNorm, "model.layers.{l}.self_attn.k_norm.weight"},
};

// Latent attention, by DeepSeek's names.
inline constexpr WeightRow kLatentRows[] = {
    {Role::kQProj, "model.layers.{l}.self_attn.q_proj.weight"},
    {Role::kQAProj, "model.layers.{l}.self_attn.q_a_proj.weight"},
    {Role::kQABias, "model.layers.{l}.self_attn.q_a_proj.bias"},
    {Role::kQANorm, "model.layers.{l}.self_attn.q_a_layernorm.weight"},
    {Role::kQBProj, "model.layers.{l}.self_attn.q_b_proj.weight"},
    {Role::kKvAProj, "model.layers.{l}.self_attn.kv_a_proj_with_mqa.weight"},
    {Role::kKvABias, "model.layers.{l}.self_attn.kv_a_proj_with_mqa.bias"},
    {Role::kKvANorm, "model.layers.{l}.self_attn.kv_a_layernorm.weight"},
    {Role::kKvBProj, "model.layers.{l}.self_attn.kv_b_proj.weight"},
    {Role::kOProj, "model.layers.{l}.self_attn.o_proj.weight"},
    {Role::kOBias, "model.layers.{l}.self_attn.o_proj.bias"},
};

// Between attention and MLP.
inline constexpr WeightRow kNormRows[] = {
    {Role::kPostAttentionNorm,
     "model.layers.{l}.post_attention_layernorm.weight"},
};

inline constexpr WeightRow kRouterRows[] = {
    {Role::kRouter, "model.layers.{l}.mlp.gate.weight"},
    own_row(Role::kRouterBias, "model.layers.{l}.mlp.gate.logit_bias"),
};

// The choice is corrected by a bias (DeepSeek-V3).
inline constexpr WeightRow kCorrectedRouterRows[] = {
    {Role::kRouter, "model.layers.{l}.mlp.gate.weight"},
    {Role::kRouterCorrection,
     "model.layers.{l}.mlp.gate.e_score_correction_bias"},
    own_row(Role::kRouterBias, "model.layers.{l}.mlp.gate.logit_bias"),
};

inline constexpr WeightRow kExpertRows[] = {
    {Role::kExpertGate,
     "model.layers.{l}.mlp.experts.{e}.gate_proj.weight",
     "model.layers.{l}.mlp.experts.gate_up_proj"},
    {Role::kExpertUp,
     "model.layers.{l}.mlp.experts.{e}.up_proj.weight",
     "model.layers.{l}.mlp.experts.gate_up_proj"},
    {Role::kExpertDown,
     "model.layers.{l}.mlp.experts.{e}.down_proj.weight",
     "model.layers.{l}.mlp.experts.down_proj"},
    own_row(Role::kExpertConstant, "model.layers.{l}.mlp.experts.constant"),
};

// Experts by Mixtral's names.
inline constexpr WeightRow kBlockSparseRows[] = {
    {Role::kExpertGate,
     "model.layers.{l}.block_sparse_moe.experts.{e}.w1.weight",
     "model.layers.{l}.mlp.experts.gate_up_proj"},
    {Role::kExpertUp,
     "model.layers.{l}.block_sparse_moe.experts.{e}.w3.weight",
     "model.layers.{l}.mlp.experts.gate_up_proj"},
    {Role::kExpertDown,
     "model.layers.{l}.block_sparse_moe.experts.{e}.w2.weight",
     "model.layers.{l}.mlp.experts.down_proj"},
    own_row(
        Role::kExpertConstant,
        "model.layers.{l}.block_sparse_moe.experts.constant"),
};

inline constexpr WeightRow kSharedExpertRows[] = {
    {Role::kSharedGate, "model.layers.{l}.mlp.shared_experts.gate_proj.weight"},
    {Role::kSharedUp, "model.layers.{l}.mlp.shared_experts.up_proj.weight"},
    {Role::kSharedDown, "model.layers.{l}.mlp.shared_experts.down_proj.weight"},
};

inline constexpr WeightRow kDenseRows[] = {
    {Role::kDenseGate, "model.layers.{l}.mlp.gate_proj.weight"},
    {Role::kDenseUp, "model.layers.{l}.mlp.up_proj.weight"},
    {Role::kDenseDown, "model.layers.{l}.mlp.down_proj.weight"},
};

inline constexpr WeightRow kLastRows[] = {
    {Role::kFinalNorm, "model.norm.weight"},
    {Role::kLmHead, "lm_head.weight"},
};

// All rows of the parts, in their order, which is that of a layer's weights.
template <std::size_t... kSizes>
constexpr auto joined(const WeightRow (&... parts)[kSizes]) {
  std::array<WeightRow, (kSizes + ...)> rows{};
  std::size_t next = 0;
  const auto add = [&](const auto& part) {
    for (const WeightRow& row : part) rows[next++] = row;
  };
  (add(parts), ...);
  return rows;
}

// Latent attention with sparse layers as DeepSeek names them, and
// grouped-query attention with the same.
inline constexpr auto kLatentSparseRows = joined(
    kFirstRows,
    kLatentRows,
    kNormRows,
    kCorrectedRouterRows,
    kExpertRows,
    kSharedExpertRows,
    kDenseRows,
    kLastRows);
inline constexpr auto kGroupedSparseRows = joined(
    kFirstRows,
    kGroupedRows,
    kNormRows,
    kCorrectedRouterRows,
    kExpertRows,
    kSharedExpertRows,
    kDenseRows,
    kLastRows);

}  // namespace fettle::model
