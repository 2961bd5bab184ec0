// SPDX-License-Identifier: Apache-2.0
#include "model/weights/weight_slot.h"

#include <algorithm>
#include <array>

#include "core/error.h"

namespace fettle::model {
namespace {

using T = at::Tensor;
using W = LayerWeights;

constexpr auto kSlots = std::to_array<WeightSlot>({
    {Role::kInputNorm, [](W& w) -> T& { return w.input_norm; }},
    {Role::kAttentionOutNorm, [](W& w) -> T& { return w.attention_out_norm; }},
    {Role::kPostAttentionNorm,
     [](W& w) -> T& { return w.post_attention_norm; }},
    {Role::kMlpOutNorm, [](W& w) -> T& { return w.mlp_out_norm; }},
    {Role::kDenseOutNorm, [](W& w) -> T& { return w.dense_out_norm; }},
    {Role::kExpertsNorm, [](W& w) -> T& { return w.experts_norm; }},
    {Role::kExpertsOutNorm, [](W& w) -> T& { return w.experts_out_norm; }},
    {Role::kLayerScalar, [](W& w) -> T& { return w.layer_scalar; }},
    {Role::kQProj, [](W& w) -> T& { return w.attention.q_proj; }},
    {Role::kQBias, [](W& w) -> T& { return w.attention.q_bias; }},
    {Role::kKProj, [](W& w) -> T& { return w.attention.k_proj; }},
    {Role::kKBias, [](W& w) -> T& { return w.attention.k_bias; }},
    {Role::kVProj, [](W& w) -> T& { return w.attention.v_proj; }},
    {Role::kVBias, [](W& w) -> T& { return w.attention.v_bias; }},
    {Role::kOProj, [](W& w) -> T& { return w.attention.o_proj; }},
    {Role::kOBias, [](W& w) -> T& { return w.attention.o_bias; }},
    {Role::kQNorm, [](W& w) -> T& { return w.attention.q_norm; }},
    {Role::kKNorm, [](W& w) -> T& { return w.attention.k_norm; }},
    {Role::kAttentionGate, [](W& w) -> T& { return w.attention.gate; }},
    {Role::kSinks, [](W& w) -> T& { return w.attention.sinks; }},
    {Role::kQAProj, [](W& w) -> T& { return w.attention.q_a_proj; }},
    {Role::kQABias, [](W& w) -> T& { return w.attention.q_a_bias; }},
    {Role::kQANorm, [](W& w) -> T& { return w.attention.q_a_norm; }},
    {Role::kQBProj, [](W& w) -> T& { return w.attention.q_b_proj; }},
    {Role::kKvAProj, [](W& w) -> T& { return w.attention.kv_a_proj; }},
    {Role::kKvABias, [](W& w) -> T& { return w.attention.kv_a_bias; }},
    {Role::kKvANorm, [](W& w) -> T& { return w.attention.kv_a_norm; }},
    {Role::kKvBProj, [](W& w) -> T& { return w.attention.kv_b_proj; }},
    {Role::kDenseGate, [](W& w) -> T& { return w.dense.gate_up; }},
    {Role::kDenseDown, [](W& w) -> T& { return w.dense.down; }},
    {Role::kRouter, [](W& w) -> T& { return w.router; }},
    {Role::kRouterCorrection, [](W& w) -> T& { return w.router_correction; }},
    {Role::kRouterBias, [](W& w) -> T& { return w.router_bias; }},
    {Role::kRouterNorm, [](W& w) -> T& { return w.router_norm; }},
    {Role::kExpertScale, [](W& w) -> T& { return w.expert_scale; }},
    {Role::kExpertGate, [](W& w) -> T& { return w.experts.gate_up; }},
    {Role::kExpertDown, [](W& w) -> T& { return w.experts.down; }},
    {Role::kExpertGateBias, [](W& w) -> T& { return w.experts.gate_up_bias; }},
    {Role::kExpertConstant, [](W& w) -> T& { return w.experts.constant; }},
    {Role::kSharedGate, [](W& w) -> T& { return w.shared.gate_up; }},
    {Role::kSharedDown, [](W& w) -> T& { return w.shared.down; }},
    {Role::kSharedRouter, [](W& w) -> T& { return w.shared_router; }},
});

// The role whose slot holds a weight: an MLP's up lies with its gate.
Role slot_role(Role role) {
  for (const MlpRoles& mlp : {kExpertRoles, kSharedRoles, kDenseRoles}) {
    if (role == mlp.up) return mlp.gate;
  }
  if (role == Role::kExpertUpBias) return Role::kExpertGateBias;
  return role;
}

const WeightSlot& find_slot(Role role) {
  const auto* const found =
      std::ranges::find(kSlots, slot_role(role), &WeightSlot::role);
  FETTLE_ASSERT(found != kSlots.end());
  return *found;
}

}  // namespace

at::Tensor& weight_slot(LayerWeights& weights, Role role) {
  return find_slot(role).tensor(weights);
}

const at::Tensor& weight_slot(const LayerWeights& weights, Role role) {
  // A slot only names a member.
  return find_slot(role).tensor(const_cast<LayerWeights&>(weights));
}

std::span<const WeightSlot> weight_slots() { return kSlots; }

}  // namespace fettle::model
