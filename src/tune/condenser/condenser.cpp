// SPDX-License-Identifier: Apache-2.0
#include "tune/condenser/condenser.h"

#include <fmt/format.h>

#include <algorithm>
#include <numeric>

#include "core/error.h"
#include "tune/condenser/condenser_delta.h"
#include "tune/part/state_tensors.h"

namespace fettle::tune {

namespace {

void check_count(
    const CondenserOptions& options, std::int64_t l, std::int64_t top_k) {
  if (options.count < top_k) return;
  throw UserError(
      "tune",
      "condensers",
      fmt::format(
          "expected fewer than the {} experts of a token in layer {}, so that "
          "its router has a choice left, found {}; ask for fewer",
          top_k,
          l,
          options.count));
}

// The first `count` experts by bias, then mass, then number, ascending. Experts
// without neurons have nothing to condense with.
std::vector<std::int64_t> most_starved(
    const at::Tensor& bias,
    const at::Tensor& mass,
    const std::vector<std::int64_t>& widths,
    std::int64_t count) {
  const at::Tensor on_cpu = bias.cpu();
  const float* b = on_cpu.const_data_ptr<float>();
  const double* m = mass.const_data_ptr<double>();
  std::vector<std::int64_t> order(widths.size());
  std::iota(order.begin(), order.end(), 0);
  std::erase_if(order, [&](std::int64_t e) { return widths[e] == 0; });
  std::ranges::stable_sort(order, [&](std::int64_t x, std::int64_t y) {
    return b[x] != b[y] ? b[x] < b[y] : m[x] < m[y];
  });
  order.resize(std::min(order.size(), static_cast<std::size_t>(count)));
  std::ranges::sort(order);
  return order;
}

}  // namespace

Condenser::Condenser(
    const model::ModelReader& reader,
    at::Device device,
    const CondenserOptions& options)
    : options_(options),
      device_(device),
      layers_(reader.config().layers.size()) {
  for (std::size_t l = 0; l < layers_.size(); ++l) {
    const model::LayerConfig& config = reader.config().layers[l];
    if (!config.sparse) continue;
    const auto id = static_cast<std::int64_t>(l);
    Layer& layer = layers_[l];
    layer.bias =
        config.router_bias
            ? reader.read({model::Role::kRouterBias, id}).to(at::kFloat)
            : at::zeros({config.num_experts()}, at::kFloat);
    layer.bias = layer.bias.to(device);
    layer.mass = at::zeros({config.num_experts()}, at::kDouble);
    layer.condensers = config.condensers;
    layer.widths = config.expert_widths;
  }
  if (has_condensers()) return;
  for (std::size_t l = 0; l < layers_.size(); ++l) {
    const model::LayerConfig& config = reader.config().layers[l];
    if (config.sparse) {
      check_count(options, static_cast<std::int64_t>(l), config.top_k);
    }
  }
}

bool Condenser::has_condensers() const {
  return std::ranges::any_of(
      layers_, [](const Layer& layer) { return !layer.condensers.empty(); });
}

void Condenser::prepare(const PrepareInput& input) {
  if (input.step >= options_.after && !has_condensers()) choose(input);
}

void Condenser::choose(const PrepareInput& input) {
  const bool seen = std::ranges::any_of(layers_, [](const Layer& layer) {
    return layer.mass.defined() && layer.mass.max().item<double>() > 0.0;
  });
  if (!seen) {
    input.forward_probe(*this, {options_.score_sequences});
    for (Layer& layer : layers_) take_mass(layer);
  }
  std::size_t chosen = 0;
  for (Layer& layer : layers_) {
    if (!layer.bias.defined()) continue;
    layer.condensers =
        most_starved(layer.bias, layer.mass, layer.widths, options_.count);
    chosen += layer.condensers.size();
  }
  input.reporter.note(fmt::format(
      "{} experts work on every token from step {} on",
      chosen,
      input.step + 1));
}

std::int64_t Condenser::trained_weights(std::int64_t layer) const {
  const at::Tensor& bias = layers_[layer].bias;
  return bias.defined() ? bias.numel() : 0;
}

void Condenser::patch(std::int64_t layer, model::LayerWeights& weights) const {
  if (!layers_[layer].bias.defined()) return;
  weights.router_bias = layers_[layer].bias;
  weights.condensers = layers_[layer].condensers;
}

// A probe visits a layer once for each of its sweeps: the sums go on.
void Condenser::begin_layer(
    sweep::Pass pass, std::int64_t layer, model::LayerWeights&) {
  Layer& own = layers_[layer];
  if (pass != sweep::Pass::kForward || !own.bias.defined()) return;
  if (own.used.defined()) return;
  own.used = at::zeros_like(own.bias, own.bias.options().dtype(at::kDouble));
}

void Condenser::on_routing(std::int64_t layer, const model::RoutingView& view) {
  const at::NoGradGuard no_grad;
  layers_[layer].used.add_(view.probs.sum(0, false, at::kDouble));
}

void Condenser::for_each_sum(
    sweep::Pass pass, std::int64_t layer, const sweep::SumVisitor& visit) {
  at::Tensor& used = layers_[layer].used;
  if (pass == sweep::Pass::kForward && used.defined()) {
    before_.show(used, visit);
  }
}

void Condenser::end_layer(
    sweep::Pass pass, std::int64_t layer, model::LayerWeights&) {
  if (pass == sweep::Pass::kForward) before_.end(layers_[layer].used);
}

void Condenser::take_mass(Layer& layer) {
  if (!layer.used.defined()) return;
  layer.mass = layer.mass + layer.used.cpu();
  layer.used.reset();
}

void Condenser::update(std::int64_t layer, const UpdateInput& input) {
  Layer& own = layers_[layer];
  if (!own.used.defined()) return;
  const at::Tensor sign = (own.used - own.used.mean()).sign().to(at::kFloat);
  // A new tensor: layers that were loaded hold the old one.
  own.bias = own.bias.add(sign, learning_rate(input.step));
  take_mass(own);
}

void Condenser::forget_step() {
  for (Layer& layer : layers_) layer.used.reset();
}

double Condenser::learning_rate(std::int64_t) const {
  return has_condensers() ? options_.condensed_rate : options_.rate;
}

void Condenser::save_state(artifact::TensorMap& into) const {
  save_adapter(into);
  for (std::size_t l = 0; l < layers_.size(); ++l) {
    if (!layers_[l].bias.defined()) continue;
    into[layer_key(name(), static_cast<std::int64_t>(l), "mass")] =
        layers_[l].mass;
  }
}

void Condenser::load_state(const artifact::TensorMap& from) {
  for (std::size_t l = 0; l < layers_.size(); ++l) {
    Layer& layer = layers_[l];
    if (!layer.bias.defined()) continue;
    const auto id = static_cast<std::int64_t>(l);
    const auto experts = layer.bias.size(0);
    const RouterChange change = load_router_change(from, id, experts);
    layer.bias = change.bias.to(device_);
    layer.condensers = change.condensers;
    layer.mass = take_tensor(
        from, layer_key(name(), id, "mass"), {at::kDouble, {experts}});
    layer.used.reset();
  }
}

void Condenser::save_adapter(artifact::TensorMap& into) const {
  for (std::size_t l = 0; l < layers_.size(); ++l) {
    if (!layers_[l].bias.defined()) continue;
    save_router_change(
        {layers_[l].bias, layers_[l].condensers},
        static_cast<std::int64_t>(l),
        into);
  }
}

}  // namespace fettle::tune
