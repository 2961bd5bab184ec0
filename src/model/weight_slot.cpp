// SPDX-License-Identifier: Apache-2.0
#include "model/weight_slot.h"

#include "core/error.h"

namespace fettle::model {
namespace {

// Works on constant weights and on others.
template <typename Weights>
auto& attention_slot(Weights& weights, Role role) {
  switch (role) {
    case Role::kQProj:
      return weights.q_proj;
    case Role::kQBias:
      return weights.q_bias;
    case Role::kKProj:
      return weights.k_proj;
    case Role::kKBias:
      return weights.k_bias;
    case Role::kVProj:
      return weights.v_proj;
    case Role::kVBias:
      return weights.v_bias;
    case Role::kOProj:
      return weights.o_proj;
    case Role::kOBias:
      return weights.o_bias;
    case Role::kQNorm:
      return weights.q_norm;
    case Role::kKNorm:
      return weights.k_norm;
    case Role::kQAProj:
      return weights.q_a_proj;
    case Role::kQABias:
      return weights.q_a_bias;
    case Role::kQANorm:
      return weights.q_a_norm;
    case Role::kQBProj:
      return weights.q_b_proj;
    case Role::kKvAProj:
      return weights.kv_a_proj;
    case Role::kKvABias:
      return weights.kv_a_bias;
    case Role::kKvANorm:
      return weights.kv_a_norm;
    default:
      FETTLE_ASSERT(role == Role::kKvBProj);
      return weights.kv_b_proj;
  }
}

template <typename Matrices>
auto& mlp_slot(Matrices& mlp, Role role) {
  return is_down_role(role) ? mlp.down : mlp.gate_up;
}

template <typename Weights>
auto& slot(Weights& weights, Role role) {
  if (kExpertRoles.has(role)) return mlp_slot(weights.experts, role);
  if (kSharedRoles.has(role)) return mlp_slot(weights.shared, role);
  if (kDenseRoles.has(role)) return mlp_slot(weights.dense, role);
  switch (role) {
    case Role::kInputNorm:
      return weights.input_norm;
    case Role::kPostAttentionNorm:
      return weights.post_attention_norm;
    case Role::kRouter:
      return weights.router;
    case Role::kRouterCorrection:
      return weights.router_correction;
    case Role::kRouterBias:
      return weights.router_bias;
    case Role::kExpertConstant:
      return weights.experts.constant;
    case Role::kSharedRouter:
      return weights.shared_router;
    default:
      return attention_slot(weights.attention, role);
  }
}

}  // namespace

at::Tensor& weight_slot(LayerWeights& weights, Role role) {
  return slot(weights, role);
}

const at::Tensor& weight_slot(const LayerWeights& weights, Role role) {
  return slot(weights, role);
}

}  // namespace fettle::model
