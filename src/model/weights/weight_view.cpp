// SPDX-License-Identifier: Apache-2.0
#include "model/weights/weight_view.h"

#include "core/error.h"
#include "model/weights/weight_slot.h"

namespace fettle::model {
namespace {

void allocate(
    Mlp& mlp,
    std::int64_t width,
    std::int64_t hidden,
    at::TensorOptions options) {
  mlp.gate_up = at::empty({2 * width, hidden}, options);
  mlp.down = at::empty({width, hidden}, options);
}

}  // namespace

at::ScalarType loaded_type(Role role, at::ScalarType type) {
  return role_info(role).kind == RoleKind::kDecision ? at::kFloat : type;
}

LayerWeights empty_layer(
    const ModelConfig& config,
    std::int64_t layer,
    at::TensorOptions options,
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
  weights.experts.activation = config.activation;
  weights.shared.activation = config.activation;
  weights.dense.activation = config.activation;
  add_empty(weights, config, layer, options, wanted);
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
    Mlp all;
    allocate(all, total, hidden, options);
    weights.experts.gate_up = all.gate_up;
    weights.experts.down = all.down;
  }
  if (shape.sparse && shape.shared_width > 0 && wanted(kSharedRoles.gate)) {
    allocate(weights.shared, shape.shared_width, hidden, options);
  }
  if (shape.has_dense() && wanted(kDenseRoles.gate)) {
    allocate(weights.dense, shape.dense_width, hidden, options);
  }
  if (shape.sparse && config.expert_bias && wanted(Role::kExpertGateBias)) {
    weights.experts.gate_up_bias =
        at::empty({2 * weights.experts.offsets.back()}, options);
  }
  for (const WeightId& id : layer_weights(config, layer)) {
    if (is_mlp_role(id.role) || is_expert_bias(id.role)) continue;
    if (!wanted(id.role)) continue;
    weight_slot(weights, id.role) = at::empty(
        weight_shape(config, id), options.dtype(loaded_type(id.role, type)));
  }
}

at::Tensor weight_view(const LayerWeights& weights, const WeightId& id) {
  const at::Tensor& slot = weight_slot(weights, id.role);
  if (is_expert_bias(id.role)) {
    const std::int64_t own = weights.experts.width(id.expert);
    return weights.experts.gate_up_bias_of(id.expert).narrow(
        0, id.role == Role::kExpertUpBias ? own : 0, own);
  }
  if (!is_mlp_role(id.role)) return slot;
  const bool down = is_down_role(id.role);
  std::int64_t first = 0;
  std::int64_t width = slot.size(0) / (down ? 1 : 2);
  if (is_expert_role(id.role)) {
    first = weights.experts.offsets.at(static_cast<std::size_t>(id.expert));
    width = weights.experts.width(id.expert);
  }
  if (down) return slot.narrow(0, first, width).t();
  return slot.narrow(0, 2 * first + (is_up_role(id.role) ? width : 0), width);
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
