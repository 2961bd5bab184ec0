// SPDX-License-Identifier: Apache-2.0
#include "tune/choice_counts.h"

namespace fettle::tune {

void ChoiceCounts::on_routing(
    std::int64_t layer, const model::RoutingView& view) {
  const at::NoGradGuard no_grad;
  const at::Tensor chosen =
      at::bincount(view.selected.flatten(), {}, view.probs.size(1));
  at::Tensor& counts = counts_[layer];
  if (counts.defined()) {
    counts.add_(chosen);
  } else {
    counts = chosen;
  }
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
