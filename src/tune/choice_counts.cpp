// SPDX-License-Identifier: Apache-2.0
#include "tune/choice_counts.h"

namespace fettle::tune {

void ChoiceCounts::begin_layer(
    sweep::Pass pass, std::int64_t layer, model::LayerWeights& weights) {
  const std::int64_t experts = weights.experts.size();
  if (pass != sweep::Pass::kForward || experts <= 0) return;
  counts_[layer] =
      at::zeros({experts}, at::dtype(at::kLong).device(weights.device()));
}

void ChoiceCounts::on_routing(
    std::int64_t layer, const model::RoutingView& view) {
  const at::NoGradGuard no_grad;
  counts_[layer].add_(
      at::bincount(view.selected.flatten(), {}, view.probs.size(1)));
}

void ChoiceCounts::for_each_sum(
    sweep::Pass pass, std::int64_t layer, const sweep::SumVisitor& visit) {
  if (pass != sweep::Pass::kForward || !counts_[layer].defined()) return;
  visit(counts_[layer], ranks::Reduction::kSum);
}

Json ChoiceCounts::to_json() const {
  Json rows = Json::array();
  for (const at::Tensor& counts : counts_) {
    if (!counts.defined()) {
      rows.push_back(Json::array());
      continue;
    }
    const at::Tensor on_cpu = counts.cpu();
    const auto* first = on_cpu.const_data_ptr<std::int64_t>();
    rows.push_back(std::vector<std::int64_t>(first, first + on_cpu.numel()));
  }
  return rows;
}

}  // namespace fettle::tune
