// SPDX-License-Identifier: Apache-2.0
#include "tune/condenser/condenser_delta.h"

#include <fmt/format.h>

#include "core/error.h"
#include "tune/part/state_tensors.h"

namespace fettle::tune {

namespace {

constexpr const char* kCondenserPart = "condenser";

}  // namespace

void save_router_change(
    const RouterChange& change, std::int64_t layer, artifact::TensorMap& into) {
  into[layer_key(kCondenserPart, layer, "bias")] = change.bias.cpu();
  into[layer_key(kCondenserPart, layer, "experts")] =
      at::tensor(change.condensers, at::kInt);
}

RouterChange load_router_change(
    const artifact::TensorMap& from, std::int64_t layer, std::int64_t experts) {
  const at::Tensor chosen =
      take_index(from, layer_key(kCondenserPart, layer, "experts"), experts);
  const auto* first = chosen.const_data_ptr<std::int64_t>();
  return {
      take_tensor(
          from,
          layer_key(kCondenserPart, layer, "bias"),
          {at::kFloat, {experts}}),
      {first, first + chosen.numel()}};
}

CondenserDelta::CondenserDelta(
    const artifact::TensorMap& from, const model::ModelConfig& config)
    : layers_(config.layers.size()) {
  for (std::size_t l = 0; l < layers_.size(); ++l) {
    const model::LayerConfig& layer = config.layers[l];
    if (!layer.sparse) continue;
    const auto id = static_cast<std::int64_t>(l);
    layers_[l] = load_router_change(from, id, layer.num_experts());
    const auto count = static_cast<std::int64_t>(layers_[l].condensers.size());
    if (count <= layer.top_k) continue;
    throw UserError(
        "tune",
        layer_key(kCondenserPart, id, "experts"),
        fmt::format(
            "expected at most the {} experts of a token, found {}; the file is "
            "damaged or of another model",
            layer.top_k,
            count));
  }
}

void CondenserDelta::change(model::ModelConfig& config) const {
  for (std::size_t l = 0; l < layers_.size(); ++l) {
    if (!layers_[l].bias.defined()) continue;
    config.layers[l].router_bias = true;
    config.layers[l].condensers = layers_[l].condensers;
  }
}

void CondenserDelta::patch(
    std::int64_t layer, model::LayerWeights& weights) const {
  if (!layers_[layer].bias.defined()) return;
  weights.router_bias = layers_[layer].bias.to(weights.router.device());
  weights.condensers = layers_[layer].condensers;
}

bool CondenserDelta::changes(const model::WeightId& id) const {
  return id.role == model::Role::kRouterBias &&
         layers_[id.layer].bias.defined();
}

at::Tensor CondenserDelta::merge(
    const model::WeightId& id, const at::Tensor&) const {
  return layers_[id.layer].bias;
}

}  // namespace fettle::tune
