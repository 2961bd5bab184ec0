// SPDX-License-Identifier: Apache-2.0
#include "analyze/base_statistics.h"

#include <algorithm>

namespace fettle::analyze {

BaseStatistics::BaseStatistics(const model::ModelConfig& config)
    : config_(config),
      h_(config, Unit::kNeuron),
      tokens_(config, Unit::kExpert),
      entropy_(config.layers.size(), 0.0),
      routed_(config.layers.size(), 0) {}

void BaseStatistics::begin_layer(
    sweep::Pass pass, std::int64_t layer, model::LayerWeights& weights) {
  if (pass != sweep::Pass::kForward) return;
  h_.begin(layer, weights.input_norm.device());
  tokens_.begin(layer, weights.input_norm.device());
}

void BaseStatistics::end_layer(
    sweep::Pass pass, std::int64_t layer, model::LayerWeights&) {
  if (pass != sweep::Pass::kForward) return;
  h_.end(layer);
  tokens_.end(layer);
}

void BaseStatistics::on_routing(
    std::int64_t layer, const model::RoutingView& view) {
  const at::NoGradGuard no_grad;
  // Sigmoid routers give no distribution: their scores are made one.
  const at::Tensor p = view.probs / view.probs.sum(1, true);
  entropy_[layer] += at::special_entr(p).sum(at::kDouble).item<double>();
  routed_[layer] += view.probs.size(0);
  tokens_.add_all(routed_tokens(view));
}

void BaseStatistics::on_expert(std::int64_t, const model::ExpertView& view) {
  const at::NoGradGuard no_grad;
  h_.add(view.expert, view.h.sum(0, false, at::kFloat));
}

artifact::LayerScores BaseStatistics::layer(std::int64_t layer) const {
  artifact::LayerScores result;
  result.widths = config_.layers[layer].expert_widths;
  if (result.widths.empty()) return result;
  const at::Tensor tokens = tokens_.total(layer);
  const at::Tensor per_neuron = at::repeat_interleave(
      tokens.clamp_min(1), at::tensor(result.widths, at::kLong), 0);
  result.mean_h = h_.total(layer).div(per_neuron).to(at::kFloat);
  result.tokens = tokens.to(at::kLong);
  result.router_entropy =
      entropy_[layer] /
      static_cast<double>(std::max<std::int64_t>(routed_[layer], 1));
  return result;
}

}  // namespace fettle::analyze
