// SPDX-License-Identifier: Apache-2.0
#include "analyze/layer_sums.h"

#include <numeric>

#include "core/error.h"

namespace fettle::analyze {
namespace {

// A layer's own value is kept as if it had one expert of width one.
std::vector<std::int64_t> slots(
    const std::vector<std::int64_t>& widths, Unit unit) {
  if (unit == Unit::kNeuron) return widths;
  if (unit == Unit::kPair) {
    std::vector<std::int64_t> pairs;
    for (const std::int64_t width : widths) pairs.push_back(width * width);
    return pairs;
  }
  if (unit == Unit::kExpert) {
    return std::vector<std::int64_t>(widths.size(), 1);
  }
  return std::vector<std::int64_t>(widths.empty() ? 0 : 1, 1);
}

}  // namespace

std::vector<std::int64_t> neuron_offsets(
    const std::vector<std::int64_t>& widths) {
  std::vector<std::int64_t> offsets(widths.size() + 1, 0);
  std::partial_sum(widths.begin(), widths.end(), offsets.begin() + 1);
  return offsets;
}

at::Tensor per_neuron(
    const at::Tensor& values, const std::vector<std::int64_t>& widths) {
  return at::repeat_interleave(values, at::tensor(widths, at::kLong), 0);
}

LayerSums::LayerSums(const model::ModelConfig& config, Kind kind)
    : kind_(kind), set_(config.layers.size(), false) {
  for (const model::LayerConfig& layer : config.layers) {
    offsets_.push_back(neuron_offsets(slots(layer.expert_widths, kind.unit)));
    totals_.push_back(at::zeros({offsets_.back().back()}, at::kDouble));
  }
}

void LayerSums::begin(std::int64_t layer, at::Device device) {
  if (!is_summed()) return;
  layer_ = layer;
  current_ = at::zeros(
      {offsets_[layer].back()}, at::dtype(at::kDouble).device(device));
}

void LayerSums::end(std::int64_t layer) {
  if (!is_summed()) return;
  FETTLE_ASSERT(layer == layer_);
  const at::NoGradGuard no_grad;
  reduce(totals_[layer], current_.cpu());
  current_.reset();
  layer_ = -1;
}

void LayerSums::visit(const sweep::SumVisitor& visit) {
  if (!is_summed()) return;
  visit(
      current_,
      kind_.reduction == Reduction::kMax ? ranks::Reduction::kMax
                                         : ranks::Reduction::kSum);
}

void LayerSums::reduce(at::Tensor into, const at::Tensor& values) const {
  if (kind_.reduction == Reduction::kMax) {
    at::maximum_out(into, into, values.to(at::kDouble));
  } else {
    into.add_(values);
  }
}

void LayerSums::add(std::int64_t expert, const at::Tensor& values) {
  const std::vector<std::int64_t>& offsets = offsets_[layer_];
  reduce(
      current_.slice(0, offsets[expert], offsets[expert + 1]),
      values.to(current_.device()));
}

void LayerSums::add_all(const at::Tensor& values) { reduce(current_, values); }

void LayerSums::set(std::int64_t layer, const at::Tensor& values) {
  const at::NoGradGuard no_grad;
  FETTLE_ASSERT(values.numel() == totals_[layer].numel());
  totals_[layer].copy_(values);
  set_[layer] = true;
}

artifact::Sum LayerSums::total(std::int64_t layer) const {
  return {kind_.unit, kind_.reduction, totals_[layer]};
}

at::Tensor routed_tokens(const model::RoutingView& view) {
  return at::bincount(view.selected.flatten(), {}, view.logits.size(1))
      .to(at::kDouble);
}

// A token chooses an expert once, so that no two of its weights meet in a cell,
// and the sum over tokens has a fixed order.
at::Tensor routed_mass(const model::RoutingView& view) {
  return at::zeros_like(view.logits)
      .scatter_(1, view.selected, view.weights.to(view.logits.scalar_type()))
      .sum(0, false, at::kDouble);
}

}  // namespace fettle::analyze
