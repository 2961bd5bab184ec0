// SPDX-License-Identifier: Apache-2.0
#include "model/weight_view.h"

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

// The tensor that is a whole weight as it is stored.
template <typename Weights>
auto& slot(Weights& weights, Role role) {
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

Mlp empty_mlp(std::int64_t width, std::int64_t hidden, at::ScalarType type) {
  return {
      at::empty({2 * width, hidden}, type), at::empty({width, hidden}, type)};
}

ExpertBank empty_bank(
    const LayerConfig& layer, std::int64_t hidden, at::ScalarType type) {
  ExpertBank bank;
  bank.offsets = {0};
  for (const std::int64_t width : layer.expert_widths) {
    bank.offsets.push_back(bank.offsets.back() + width);
  }
  const std::int64_t total = bank.offsets.back();
  bank.gate_up = at::empty({2 * total, hidden}, type);
  bank.down = at::empty({total, hidden}, type);
  return bank;
}

const Mlp* find_mlp(const LayerWeights& weights, Role role) {
  switch (role) {
    case Role::kSharedGate:
    case Role::kSharedUp:
    case Role::kSharedDown:
      return &weights.shared;
    case Role::kDenseGate:
    case Role::kDenseUp:
    case Role::kDenseDown:
      return &weights.dense;
    default:
      return nullptr;
  }
}

bool is_up_role(Role role) {
  return role == Role::kExpertUp || role == Role::kSharedUp ||
         role == Role::kDenseUp;
}

}  // namespace

bool is_down_role(Role role) {
  return role == Role::kExpertDown || role == Role::kSharedDown ||
         role == Role::kDenseDown;
}

at::ScalarType loaded_type(Role role, at::ScalarType type) {
  const bool routing = role == Role::kRouter ||
                       role == Role::kRouterCorrection ||
                       role == Role::kRouterBias;
  return routing ? at::kFloat : type;
}

LayerWeights empty_layer(
    const ModelConfig& config, std::int64_t layer, at::ScalarType type) {
  const LayerConfig& shape = config.layers.at(static_cast<std::size_t>(layer));
  const std::int64_t hidden = config.hidden_size;
  LayerWeights weights;
  if (shape.sparse) {
    weights.experts = empty_bank(shape, hidden, type);
    weights.condensers = shape.condensers;
    if (shape.shared_width > 0) {
      weights.shared = empty_mlp(shape.shared_width, hidden, type);
    }
  } else {
    weights.dense = empty_mlp(shape.dense_width, hidden, type);
  }
  for (const WeightId& id : layer_weights(config, layer)) {
    if (is_expert_role(id.role) || find_mlp(weights, id.role)) continue;
    slot(weights, id.role) =
        at::empty(weight_shape(config, id), loaded_type(id.role, type));
  }
  return weights;
}

at::Tensor weight_view(const LayerWeights& weights, const WeightId& id) {
  const at::Tensor* gate_up = &weights.experts.gate_up;
  const at::Tensor* down = &weights.experts.down;
  std::int64_t first = 0;
  std::int64_t width = 0;
  if (const Mlp* mlp = find_mlp(weights, id.role)) {
    gate_up = &mlp->gate_up;
    down = &mlp->down;
    width = down->size(0);
  } else if (is_expert_role(id.role)) {
    first = weights.experts.offsets.at(static_cast<std::size_t>(id.expert));
    width = weights.experts.width(id.expert);
  } else {
    return slot(weights, id.role);
  }
  if (is_down_role(id.role)) return down->narrow(0, first, width).t();
  return gate_up->narrow(
      0, 2 * first + (is_up_role(id.role) ? width : 0), width);
}

}  // namespace fettle::model
