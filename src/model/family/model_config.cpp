// SPDX-License-Identifier: Apache-2.0
#include "model/family/model_config.h"

#include <numeric>

#include "model/family/weight_table.h"

namespace fettle::model {

std::int64_t LayerConfig::total_width() const {
  return std::accumulate(
      expert_widths.begin(), expert_widths.end(), std::int64_t{0});
}

std::int64_t ModelConfig::parameters() const {
  std::int64_t total = 0;
  for (const WeightId& id : model_weights(*this)) {
    total += weight_numel(*this, id);
  }
  return total;
}

std::int64_t ModelConfig::active_parameters() const {
  std::int64_t total = parameters();
  for (const LayerConfig& layer : layers) {
    if (!layer.sparse) continue;
    const std::int64_t rows = inputs_of(activation) + 1;  // of a neuron
    std::int64_t experts = rows * layer.total_width() * hidden_size;
    if (expert_bias) experts += 2 * layer.total_width();
    if (layer.has_constants) experts += layer.num_experts() * hidden_size;
    total -= experts;
    total += experts * layer.top_k / layer.num_experts();
  }
  return total;
}

}  // namespace fettle::model
