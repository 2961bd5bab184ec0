// SPDX-License-Identifier: Apache-2.0
#include "tune/sparse_units.h"

namespace fettle::tune {

SparseUnits::SparseUnits(
    const model::ModelReader& reader,
    at::Device device,
    const SparseOptions& options,
    UnitShape shape,
    const std::vector<std::int64_t>& units)
    : reader_(reader), device_(device), options_(options), shape_(shape) {
  for (const std::int64_t count : units) {
    Layer& layer = layers_.emplace_back();
    layer.units = count;
    layer.active = no_units(shape.planes, shape.width);
    layer.frozen = no_units(shape.planes, shape.width);
    layer.adam = AdamWState::zeros_like(layer.active.values);
  }
}

void SparseUnits::set_rows(
    std::int64_t layer, UnitRows active, UnitRows frozen) {
  Layer& own = layers_[layer];
  active.values = active.values.to(device_);
  frozen.values = frozen.values.to(device_);
  own.active = std::move(active);
  own.frozen = std::move(frozen);
  own.gradient.reset();
  on_active_changed(layer);
}

const at::Tensor& SparseUnits::active(std::int64_t layer) const {
  return layers_[layer].active.index;
}

const at::Tensor& SparseUnits::gradient(std::int64_t layer) const {
  return layers_[layer].gradient;
}

const UnitRows& SparseUnits::frozen(std::int64_t layer) const {
  return layers_[layer].frozen;
}

bool SparseUnits::trains(std::int64_t layer) const {
  return layers_[layer].active.size() > 0;
}

std::int64_t SparseUnits::trainable_weights() const {
  std::int64_t total = 0;
  for (std::int64_t l = 0; l < num_layers(); ++l) total += trained_weights(l);
  return total;
}

std::int64_t SparseUnits::trained_weights(std::int64_t layer) const {
  return layers_[layer].active.values.numel();
}

void SparseUnits::patch(
    std::int64_t layer, model::LayerWeights& weights) const {
  const Layer& own = layers_[layer];
  if (own.frozen.size() > 0) write(layer, own.frozen, weights);
  if (own.active.size() > 0) write(layer, own.active, weights);
}

void SparseUnits::begin_layer(
    sweep::Pass pass, std::int64_t layer, model::LayerWeights&) {
  Layer& own = layers_[layer];
  if (pass == sweep::Pass::kForward) {
    own.mass.reset();
  } else if (trains(layer)) {
    own.gradient = at::zeros_like(own.active.values);
  }
}

void SparseUnits::on_routing(
    std::int64_t layer, const model::RoutingView& view) {
  if (options_.rest_below <= 0.0 || !trains(layer)) return;
  const at::NoGradGuard no_grad;
  Layer& own = layers_[layer];
  if (!own.mass.defined()) {
    own.mass = at::zeros({view.logits.size(1)}, at::kDouble);
  }
  own.mass.index_add_(
      0,
      view.selected.flatten().cpu(),
      view.weights.flatten().cpu().to(at::kDouble));
}

double SparseUnits::gradient_norm_squared(std::int64_t layer) const {
  const at::Tensor& gradient = layers_[layer].gradient;
  if (!gradient.defined()) return 0.0;
  return gradient.square().sum(at::kDouble).item<double>();
}

void SparseUnits::step(Layer& layer, double rate, const ExpertRun& run) {
  const auto part = [&](const at::Tensor& tensor) {
    return tensor.narrow(1, run.first, run.count);
  };
  at::Tensor values = part(layer.active.values);
  AdamWState adam{
      part(layer.adam.first),
      part(layer.adam.second),
      layer.adam.age.narrow(0, run.first, run.count)};
  adamw_step(options_.adamw, rate, part(layer.gradient), values, adam);
}

void SparseUnits::update(std::int64_t layer, const UpdateInput& input) {
  Layer& own = layers_[layer];
  if (!own.gradient.defined()) return;
  if (input.gradient_scale != 1.0) own.gradient.mul_(input.gradient_scale);
  const double rate = learning_rate(input.step);
  if (!own.mass.defined()) {
    step(own, rate, {.first = 0, .count = own.active.size()});
  } else {
    const double least = options_.rest_below * own.mass.mean().item<double>();
    for (const ExpertRun& run : expert_runs(layer)) {
      // What belongs to no expert never rests.
      const bool works =
          run.expert < 0 || own.mass[run.expert].item<double>() >= least;
      if (works && run.count > 0) step(own, rate, run);
    }
  }
  own.gradient.reset();
}

double SparseUnits::learning_rate(std::int64_t step) const {
  return tune::learning_rate(options_.schedule, step);
}

}  // namespace fettle::tune
