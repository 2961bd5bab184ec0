// SPDX-License-Identifier: Apache-2.0
#include "tune/router_delta.h"

#include "tune/state_tensors.h"

namespace fettle::tune {

namespace {

std::string key_of(std::int64_t layer) {
  return layer_key("router", layer, "weight");
}

}  // namespace

void RouterDelta::save_layer(
    const at::Tensor& weight, std::int64_t layer, artifact::TensorMap& into) {
  into[key_of(layer)] = weight;
}

RouterDelta::RouterDelta(
    const artifact::TensorMap& from, const model::ModelConfig& config)
    : weights_(config.layers.size()) {
  for (std::size_t l = 0; l < weights_.size(); ++l) {
    const std::string key = key_of(static_cast<std::int64_t>(l));
    if (!from.contains(key)) continue;
    weights_[l] = take_tensor(
        from,
        key,
        {at::kFloat, {config.layers[l].num_experts(), config.hidden_size}});
  }
}

void RouterDelta::patch(
    std::int64_t layer, model::LayerWeights& weights) const {
  if (!weights_[layer].defined()) return;
  const at::NoGradGuard no_grad;
  weights.router.copy_(weights_[layer]);
}

bool RouterDelta::changes(const model::WeightId& id) const {
  return id.role == model::Role::kRouter && weights_[id.layer].defined();
}

at::Tensor RouterDelta::merge(
    const model::WeightId& id, const at::Tensor& base) const {
  return weights_[id.layer].view_as(base);
}

}  // namespace fettle::tune
