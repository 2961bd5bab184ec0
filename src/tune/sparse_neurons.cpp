// SPDX-License-Identifier: Apache-2.0
#include "tune/sparse_neurons.h"

#include <fmt/format.h>

#include "core/error.h"
#include "tune/neuron_gradient.h"

namespace fettle::tune {

SparseNeurons::SparseNeurons(
    const model::ModelReader& reader,
    at::Device device,
    const SparseNeuronsOptions& options)
    : reader_(reader), device_(device), options_(options) {
  const std::int64_t hidden = reader.config().hidden_size;
  for (const model::LayerConfig& config : reader.config().layers) {
    Layer& layer = layers_.emplace_back();
    layer.offsets = expert_offsets(config);
    set_rows(layer, no_rows(hidden), no_rows(hidden));
    layer.adam = AdamWState::zeros_like(layer.active.values);
  }
}

void SparseNeurons::set_rows(
    Layer& layer, NeuronRows active, NeuronRows frozen) {
  active.values = active.values.to(device_);
  frozen.values = frozen.values.to(device_);
  layer.active = std::move(active);
  layer.frozen = std::move(frozen);
  layer.active_rows = bank_rows(layer.active.index, layer.offsets).to(device_);
  layer.frozen_rows = bank_rows(layer.frozen.index, layer.offsets).to(device_);
  layer.ranges = expert_ranges(layer.active.index, layer.offsets);
  at::Tensor columns = layer.active.index.clone();
  for (std::size_t e = 0; e + 1 < layer.offsets.size(); ++e) {
    columns.narrow(0, layer.ranges[e], layer.ranges[e + 1] - layer.ranges[e])
        .sub_(layer.offsets[e]);
  }
  layer.columns = columns.to(device_);
  layer.gradient.reset();
}

const at::Tensor& SparseNeurons::active(std::int64_t layer) const {
  return layers_[layer].active.index;
}

const at::Tensor& SparseNeurons::gradient(std::int64_t layer) const {
  return layers_[layer].gradient;
}

const NeuronRows& SparseNeurons::frozen(std::int64_t layer) const {
  return layers_[layer].frozen;
}

bool SparseNeurons::trains(std::int64_t layer) const {
  return layers_[layer].active.size() > 0;
}

std::int64_t SparseNeurons::trainable_weights() const {
  std::int64_t total = 0;
  for (const Layer& layer : layers_) total += layer.active.values.numel();
  return total;
}

void SparseNeurons::patch(
    std::int64_t layer, model::LayerWeights& weights) const {
  const Layer& own = layers_[layer];
  write_rows(own.frozen_rows, own.frozen.values, weights.experts);
  write_rows(own.active_rows, own.active.values, weights.experts);
}

void SparseNeurons::begin_layer(
    sweep::Pass pass, std::int64_t layer, model::LayerWeights&) {
  if (pass != sweep::Pass::kBackward || !trains(layer)) return;
  layers_[layer].gradient = at::zeros_like(layers_[layer].active.values);
}

void SparseNeurons::on_expert_gradient(
    std::int64_t layer, const model::ExpertGradView& view) {
  const Layer& own = layers_[layer];
  const std::int64_t first = own.ranges[view.expert];
  const std::int64_t count = own.ranges[view.expert + 1] - first;
  if (count == 0) return;
  const at::NoGradGuard no_grad;
  add_neuron_gradient(
      view,
      own.columns.narrow(0, first, count),
      own.gradient.narrow(1, first, count));
}

double SparseNeurons::gradient_norm_squared(std::int64_t layer) const {
  const at::Tensor& gradient = layers_[layer].gradient;
  if (!gradient.defined()) return 0.0;
  return gradient.square().sum(at::kDouble).item<double>();
}

void SparseNeurons::update(std::int64_t layer, const UpdateInput& input) {
  Layer& own = layers_[layer];
  if (!own.gradient.defined()) return;
  if (input.gradient_scale != 1.0) own.gradient.mul_(input.gradient_scale);
  adamw_step(
      options_.adamw,
      learning_rate(input.step),
      own.gradient,
      own.active.values,
      own.adam);
  own.gradient.reset();
}

double SparseNeurons::learning_rate(std::int64_t step) const {
  return tune::learning_rate(options_.schedule, step);
}

}  // namespace fettle::tune
