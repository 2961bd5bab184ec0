// SPDX-License-Identifier: Apache-2.0
#include "model/weights/weight_view.h"

#include "core/error.h"
#include "model/weights/weight_slot.h"

namespace fettle::model {
namespace {

struct MlpSize {
  std::int64_t width, hidden;
  std::int64_t inputs;  // of a neuron
};

// The weights of `width` neurons, in place of none.
void allocate(
    at::Tensor& gate_up,
    at::Tensor& down,
    const MlpSize& size,
    at::TensorOptions options) {
  gate_up = at::empty({size.inputs * size.width, size.hidden}, options);
  down = at::empty({size.width, size.hidden}, options);
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
  const auto size = [&](std::int64_t width) {
    return MlpSize{width, config.hidden_size, inputs_of(config.activation)};
  };
  const auto type = c10::typeMetaToScalarType(options.dtype());
  ExpertBank& bank = weights.experts;
  Mlp& shared = weights.shared;
  Mlp& dense = weights.dense;
  if (shape.sparse && wanted(kExpertRoles.up)) {
    allocate(bank.gate_up, bank.down, size(bank.offsets.back()), options);
  }
  if (shape.sparse && shape.shared_width > 0 && wanted(kSharedRoles.up)) {
    allocate(shared.gate_up, shared.down, size(shape.shared_width), options);
  }
  if (shape.dense_width > 0 && wanted(kDenseRoles.up)) {
    allocate(dense.gate_up, dense.down, size(shape.dense_width), options);
  }
  if (shape.sparse && config.expert_bias && wanted(Role::kExpertGateBias)) {
    bank.gate_up_bias =
        at::empty({bank.inputs() * bank.offsets.back()}, options);
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
  const std::int64_t inputs = weights.experts.inputs();
  std::int64_t first = 0;
  std::int64_t width = slot.size(0) / (down ? 1 : inputs);
  if (is_expert_role(id.role)) {
    first = weights.experts.offsets.at(static_cast<std::size_t>(id.expert));
    width = weights.experts.width(id.expert);
  }
  if (down) return slot.narrow(0, first, width).t();
  // Up's rows are an expert's last.
  const std::int64_t above = is_up_role(id.role) ? (inputs - 1) * width : 0;
  return slot.narrow(0, inputs * first + above, width);
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
