// SPDX-License-Identifier: Apache-2.0
#include "analyze/layer_sums.h"

#include <numeric>

#include "core/error.h"

namespace fettle::analyze {

std::vector<std::int64_t> neuron_offsets(
    const std::vector<std::int64_t>& widths) {
  std::vector<std::int64_t> offsets(widths.size() + 1, 0);
  std::partial_sum(widths.begin(), widths.end(), offsets.begin() + 1);
  return offsets;
}

LayerSums::LayerSums(const model::ModelConfig& config, Unit unit)
    : unit_(unit) {
  for (const model::LayerConfig& layer : config.layers) {
    offsets_.push_back(
        unit == Unit::kNeuron ? neuron_offsets(layer.expert_widths)
                              : neuron_offsets(std::vector<std::int64_t>(
                                    layer.expert_widths.size(), 1)));
    totals_.push_back(at::zeros({offsets_.back().back()}, at::kDouble));
  }
}

void LayerSums::begin(std::int64_t layer, at::Device device) {
  layer_ = layer;
  current_ = at::zeros(
      {offsets_[layer].back()}, at::dtype(at::kDouble).device(device));
}

void LayerSums::end(std::int64_t layer) {
  FETTLE_ASSERT(layer == layer_);
  const at::NoGradGuard no_grad;
  totals_[layer].add_(current_.cpu());
  current_.reset();
  layer_ = -1;
}

void LayerSums::add(std::int64_t expert, const at::Tensor& values) {
  const std::vector<std::int64_t>& offsets = offsets_[layer_];
  current_.slice(0, offsets[expert], offsets[expert + 1]).add_(values);
}

void LayerSums::add_all(const at::Tensor& values) { current_.add_(values); }

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

at::Tensor LayerSums::total(std::int64_t layer) const { return totals_[layer]; }

}  // namespace fettle::analyze
