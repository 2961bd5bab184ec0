// SPDX-License-Identifier: Apache-2.0
#include "tune/sparse/block_layout.h"

#include <algorithm>

#include "tune/sparse/unit_rows.h"

namespace fettle::tune {

BlockLayout::BlockLayout(
    const model::ModelConfig& config,
    std::int64_t layer,
    const std::vector<model::Role>& roles,
    BlockShape block) {
  for (const model::WeightId& id : model::layer_weights(config, layer)) {
    if (std::ranges::find(roles, id.role) == roles.end()) continue;
    const auto shape = model::weight_shape(config, id);
    if (shape[0] == 0 || shape[1] == 0) continue;
    const BlockGrid grid{shape[0], shape[1], block};
    matrices_.push_back({id, grid, count_});
    count_ += grid.count();
    offsets_.push_back(count_);
  }
}

std::int64_t BlockLayout::find(const model::WeightId& id) const {
  const auto found = std::ranges::find(matrices_, id, &BlockMatrix::id);
  return found == matrices_.end() ? -1 : found - matrices_.begin();
}

std::vector<std::int64_t> BlockLayout::ranges(const at::Tensor& index) const {
  return ranges_of(index, offsets_);
}

std::vector<BlockLayout::Part> BlockLayout::split(
    const at::Tensor& index) const {
  const auto bounds = ranges(index);
  std::vector<Part> parts;
  for (std::size_t m = 0; m < matrices_.size(); ++m) {
    const std::int64_t count = bounds[m + 1] - bounds[m];
    parts.push_back(
        {bounds[m], index.narrow(0, bounds[m], count) - matrices_[m].first});
  }
  return parts;
}

void BlockLayout::for_each_part(
    const at::Tensor& index, const Visit& visit) const {
  const auto bounds = ranges(index);
  for (std::size_t m = 0; m < matrices_.size(); ++m) {
    const std::int64_t count = bounds[m + 1] - bounds[m];
    if (count == 0) continue;
    visit(
        matrices_[m],
        {bounds[m], index.narrow(0, bounds[m], count) - matrices_[m].first});
  }
}

}  // namespace fettle::tune
