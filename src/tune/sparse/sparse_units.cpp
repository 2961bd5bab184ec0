// SPDX-License-Identifier: Apache-2.0
#include "tune/sparse/sparse_units.h"

#include "tune/part/clipping.h"

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
    layer.active.values = no_units(shape.planes, shape.width).values;
    layer.frozen.values = layer.active.values;
    layer.adam =
        options.owners.moments(std::ssize(layers_) - 1, layer.active.values);
    layer.adam.age = at::zeros({0}, at::kInt);
  }
}

void SparseUnits::set_rows(
    std::int64_t layer, UnitRows active, UnitRows frozen) {
  Layer& own = layers_[layer];
  own.active = {CompactIndex(active.index), active.values.to(device_)};
  own.frozen = {CompactIndex(frozen.index), frozen.values.to(device_)};
  own.gradient.reset();
  on_active_changed(layer, active.index);
}

at::Tensor SparseUnits::active(std::int64_t layer) const {
  return layers_[layer].active.index.decode();
}

std::int64_t SparseUnits::num_ages(std::int64_t layer) const {
  if (ages_by_unit()) return layers_[layer].active.size();
  return options_.rest_below > 0.0 ? std::ssize(unit_runs(layer)) : 1;
}

std::int64_t SparseUnits::state_bytes(std::int64_t layer) const {
  const Layer& own = layers_[layer];
  std::size_t total = 0;
  for (const at::Tensor& tensor :
       {own.active.index.stored(),
        own.active.values,
        own.frozen.index.stored(),
        own.frozen.values,
        own.adam.first,
        own.adam.second,
        own.adam.age}) {
    total += tensor.is_meta() ? 0 : tensor.nbytes();
  }
  return static_cast<std::int64_t>(total);
}

const at::Tensor& SparseUnits::gradient(std::int64_t layer) const {
  return layers_[layer].gradient;
}

UnitRows SparseUnits::frozen(std::int64_t layer) const {
  return layers_[layer].frozen.decode();
}

bool SparseUnits::trains(std::int64_t layer) const {
  return layers_[layer].active.size() > 0;
}

std::int64_t SparseUnits::trained_weights(std::int64_t layer) const {
  return layers_[layer].active.values.numel();
}

void SparseUnits::patch(
    std::int64_t layer, model::LayerWeights& weights) const {
  const Layer& own = layers_[layer];
  if (own.frozen.size() > 0) write(layer, own.frozen.decode(), weights);
  if (own.active.size() > 0) write(layer, own.active.decode(), weights);
}

void SparseUnits::begin_layer(
    sweep::Pass pass, std::int64_t layer, model::LayerWeights& weights) {
  Layer& own = layers_[layer];
  if (pass == sweep::Pass::kForward) {
    own.mass.reset();
    const std::int64_t experts = weights.experts.size();
    if (options_.rest_below > 0.0 && trains(layer) && experts > 0) {
      own.mass = at::zeros({experts}, at::kDouble);
    }
  } else if (trains(layer)) {
    own.gradient = at::zeros_like(own.active.values);
  }
}

void SparseUnits::on_routing(
    std::int64_t layer, const model::RoutingView& view) {
  Layer& own = layers_[layer];
  if (!own.mass.defined()) return;
  const at::NoGradGuard no_grad;
  own.mass.index_add_(
      0,
      view.selected.flatten().cpu(),
      view.weights.flatten().cpu().to(at::kDouble));
}

void SparseUnits::for_each_sum(
    sweep::Pass pass, std::int64_t layer, const sweep::SumVisitor& visit) {
  Layer& own = layers_[layer];
  if (pass == sweep::Pass::kForward) {
    if (own.mass.defined()) visit(own.mass, ranks::Reduction::kSum);
  } else if (own.gradient.defined()) {
    visit(own.gradient, options_.owners.sum_of(layer));
  }
}

void SparseUnits::end_layer(
    sweep::Pass pass, std::int64_t layer, model::LayerWeights&) {
  if (pass != sweep::Pass::kBackward) return;
  options_.owners.leave(layer, layers_[layer].gradient);
}

std::int64_t SparseUnits::owner(std::int64_t layer) const {
  return options_.owners.owner(layer);
}

double SparseUnits::gradient_norm_squared(std::int64_t layer) const {
  const at::Tensor& gradient = layers_[layer].gradient;
  return gradient.defined() ? norm_squared(gradient, 1).item<double>() : 0.0;
}

void SparseUnits::step(
    Layer& layer, double rate, const UnitRun& run, std::int64_t place) {
  const auto part = [&](const at::Tensor& tensor) {
    return tensor.narrow(1, run.first, run.count);
  };
  at::Tensor values = part(layer.active.values);
  AdamWState adam{
      part(layer.adam.first),
      part(layer.adam.second),
      ages_by_unit() ? layer.adam.age.narrow(0, run.first, run.count)
                     : layer.adam.age.narrow(0, place, 1)};
  adamw_step(options_.adamw, rate, part(layer.gradient), values, adam);
}

void SparseUnits::update(std::int64_t layer, const UpdateInput& input) {
  Layer& own = layers_[layer];
  if (!own.gradient.defined()) return;
  if (input.gradient_scale != 1.0 && options_.owners.owns(layer)) {
    own.gradient.mul_(input.gradient_scale);
  }
  const double rate = learning_rate(input.step);
  if (options_.rest_below <= 0.0) {
    step(own, rate, {.first = 0, .count = own.active.size()}, 0);
  } else {
    const double least = own.mass.defined() ? options_.rest_below *
                                                  own.mass.mean().item<double>()
                                            : 0.0;
    std::int64_t place = 0;
    for (const UnitRun& run : unit_runs(layer)) {
      // What belongs to no expert never rests.
      const bool works = run.expert < 0 || !own.mass.defined() ||
                         own.mass[run.expert].item<double>() >= least;
      if (works && run.count > 0) step(own, rate, run, place);
      ++place;
    }
  }
  own.gradient.reset();
  options_.owners.share(layer, {own.active.values});
}

double SparseUnits::learning_rate(std::int64_t step) const {
  return tune::learning_rate(options_.schedule, step);
}

}  // namespace fettle::tune
