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

Mlp empty_mlp(
    std::int64_t width, std::int64_t hidden, at::TensorOptions options) {
  return {
      at::empty({2 * width, hidden}, options),
      at::empty({width, hidden}, options)};
}

const Mlp* find_mlp(const LayerWeights& weights, Role role) {
  if (kSharedRoles.has(role)) return &weights.shared;
  if (kDenseRoles.has(role)) return &weights.dense;
  return nullptr;
}

bool is_up_role(Role role) {
  return role == kExpertRoles.up || role == kSharedRoles.up ||
         role == kDenseRoles.up;
}

}  // namespace

at::ScalarType loaded_type(Role role, at::ScalarType type) {
  const bool routing = role == Role::kRouter ||
                       role == Role::kRouterCorrection ||
                       role == Role::kRouterBias;
  return routing ? at::kFloat : type;
}

LayerWeights empty_layer(
    const ModelConfig& config,
    std::int64_t layer,
    at::ScalarType type,
    const WantedRoles& wanted) {
  const LayerConfig& shape = config.layers.at(static_cast<std::size_t>(layer));
  LayerWeights weights;
  if (shape.sparse) {
    weights.experts.offsets = {0};
    for (const std::int64_t width : shape.expert_widths) {
      weights.experts.offsets.push_back(weights.experts.offsets.back() + width);
    }
    weights.condensers = shape.condensers;
  }
  add_empty(weights, config, layer, type, wanted);
  return weights;
}

void add_empty(
    LayerWeights& weights,
    const ModelConfig& config,
    std::int64_t layer,
    at::TensorOptions options,
    const WantedRoles& wanted) {
  const LayerConfig& shape = config.layers.at(static_cast<std::size_t>(layer));
  const std::int64_t hidden = config.hidden_size;
  const auto type = c10::typeMetaToScalarType(options.dtype());
  if (shape.sparse && wanted(kExpertRoles.gate)) {
    const std::int64_t total = weights.experts.offsets.back();
    const Mlp all = empty_mlp(total, hidden, options);
    weights.experts.gate_up = all.gate_up;
    weights.experts.down = all.down;
  }
  if (shape.sparse && shape.shared_width > 0 && wanted(kSharedRoles.gate)) {
    weights.shared = empty_mlp(shape.shared_width, hidden, options);
  }
  if (!shape.sparse && wanted(kDenseRoles.gate)) {
    weights.dense = empty_mlp(shape.dense_width, hidden, options);
  }
  for (const WeightId& id : layer_weights(config, layer)) {
    if (is_mlp_role(id.role) || !wanted(id.role)) continue;
    slot(weights, id.role) = at::empty(
        weight_shape(config, id), options.dtype(loaded_type(id.role, type)));
  }
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

at::Tensor weight_view(const GlobalWeights& weights, const WeightId& id) {
  switch (id.role) {
    case Role::kEmbedTokens:
      return weights.embed_tokens;
    case Role::kFinalNorm:
      return weights.final_norm;
    default:
      FETTLE_ASSERT(id.role == Role::kLmHead);
      return weights.lm_head;
  }
}

}  // namespace fettle::model
