// SPDX-License-Identifier: Apache-2.0
#include "trim/condensers.h"

#include <algorithm>

namespace fettle::trim {

Condensers condensers_of(const model::ModelConfig& config) {
  Condensers result;
  bool any = false;
  for (const model::LayerConfig& layer : config.layers) {
    result.push_back(layer.condensers);
    any = any || !layer.condensers.empty();
  }
  return any ? result : Condensers{};
}

std::vector<std::int64_t> renumbered(
    const std::vector<std::int64_t>& condensers,
    const artifact::LayerPlan& plan) {
  std::vector<std::int64_t> result;
  for (std::size_t i = 0; i < plan.experts.size(); ++i) {
    if (std::ranges::binary_search(condensers, plan.experts[i].expert)) {
      result.push_back(static_cast<std::int64_t>(i));
    }
  }
  return result;
}

}  // namespace fettle::trim
