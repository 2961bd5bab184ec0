// SPDX-License-Identifier: Apache-2.0
#include "tune/router_weights.h"

#include "tune/router_delta.h"
#include "tune/state_tensors.h"

namespace fettle::tune {

RouterWeights::RouterWeights(
    const model::ModelReader& reader,
    at::Device device,
    const RouterWeightsOptions& options)
    : options_(options),
      device_(device),
      layers_(reader.config().layers.size()) {
  for (std::size_t l = 0; l < layers_.size(); ++l) {
    if (!reader.config().layers[l].sparse) continue;
    const auto id = static_cast<std::int64_t>(l);
    layers_[l].weight = reader.read({model::Role::kRouter, id})
                            .to(device, at::kFloat)
                            .contiguous();
    layers_[l].adam = AdamWState::zeros_like(layers_[l].weight);
  }
}

void RouterWeights::prepare(const PrepareInput& input) {
  training_ = input.step >= options_.frozen_steps;
}

bool RouterWeights::trains(std::int64_t layer) const {
  return training_ && layers_[layer].weight.defined();
}

std::int64_t RouterWeights::trainable_weights() const {
  std::int64_t total = 0;
  for (const Layer& layer : layers_) {
    if (layer.weight.defined()) total += layer.weight.numel();
  }
  return total;
}

void RouterWeights::patch(
    std::int64_t layer, model::LayerWeights& weights) const {
  if (!layers_[layer].weight.defined()) return;
  const at::NoGradGuard no_grad;
  weights.router.copy_(layers_[layer].weight);
}

void RouterWeights::begin_layer(
    sweep::Pass pass, std::int64_t layer, model::LayerWeights&) {
  if (pass != sweep::Pass::kBackward || !trains(layer)) return;
  layers_[layer].gradient = at::zeros_like(layers_[layer].weight);
}

void RouterWeights::on_router_gradient(
    std::int64_t layer, const at::Tensor& x, const at::Tensor& d_logits) {
  if (!trains(layer)) return;
  const at::NoGradGuard no_grad;
  layers_[layer].gradient.addmm_(d_logits.to(at::kFloat).t(), x.to(at::kFloat));
}

double RouterWeights::gradient_norm_squared(std::int64_t layer) const {
  const at::Tensor& gradient = layers_[layer].gradient;
  if (!gradient.defined()) return 0.0;
  return gradient.square().sum(at::kDouble).item<double>();
}

void RouterWeights::update(std::int64_t layer, const UpdateInput& input) {
  Layer& own = layers_[layer];
  if (!own.gradient.defined()) return;
  if (input.gradient_scale != 1.0) own.gradient.mul_(input.gradient_scale);
  adamw_step(
      options_.adamw,
      learning_rate(input.step),
      own.gradient,
      own.weight,
      own.adam);
  own.gradient.reset();
}

double RouterWeights::learning_rate(std::int64_t step) const {
  if (step < options_.frozen_steps) return 0.0;
  return tune::learning_rate(options_.schedule, step - options_.frozen_steps);
}

void RouterWeights::save_state(artifact::TensorMap& into) const {
  for (std::size_t l = 0; l < layers_.size(); ++l) {
    if (!layers_[l].weight.defined()) continue;
    const auto put = [&](std::string_view what, const at::Tensor& tensor) {
      into[layer_key(name(), static_cast<std::int64_t>(l), what)] = tensor;
    };
    put("weight", layers_[l].weight);
    put("first", layers_[l].adam.first);
    put("second", layers_[l].adam.second);
    put("age", layers_[l].adam.age.to(at::kInt));
  }
}

void RouterWeights::load_state(const artifact::TensorMap& from) {
  for (std::size_t l = 0; l < layers_.size(); ++l) {
    Layer& layer = layers_[l];
    if (!layer.weight.defined()) continue;
    const auto take = [&](std::string_view what, const ExpectedTensor& like) {
      return take_tensor(
          from, layer_key(name(), static_cast<std::int64_t>(l), what), like);
    };
    const ExpectedTensor values{at::kFloat, layer.weight.sizes().vec()};
    layer.adam.first = take("first", values).to(device_);
    layer.adam.second = take("second", values).to(device_);
    layer.adam.age =
        take("age", {at::kInt, {layer.weight.size(0)}}).to(at::kLong);
    layer.weight = take("weight", values).to(device_);
  }
}

void RouterWeights::save_adapter(artifact::TensorMap& into) const {
  for (std::size_t l = 0; l < layers_.size(); ++l) {
    const Layer& layer = layers_[l];
    const bool was_trained =
        layer.weight.defined() && layer.adam.age.max().item<std::int64_t>() > 0;
    if (!was_trained) continue;
    RouterDelta::save_layer(layer.weight, static_cast<std::int64_t>(l), into);
  }
}

}  // namespace fettle::tune
