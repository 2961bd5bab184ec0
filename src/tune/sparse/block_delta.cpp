// SPDX-License-Identifier: Apache-2.0
#include "tune/sparse/block_delta.h"

#include <algorithm>

#include "core/error.h"
#include "model/weights/weight_view.h"
#include "tune/part/state_tensors.h"
#include "tune/whole/weight_delta.h"

namespace fettle::tune {

void BlockDelta::save_matrix(
    std::string_view part,
    const BlockMatrix& matrix,
    const at::Tensor& ids,
    const at::Tensor& values,
    artifact::TensorMap& into) {
  const std::string key = weight_key(part, matrix.id);
  into[key + ".index"] = CompactIndex(ids).stored();
  into[key + ".values"] = values.contiguous().view(
      {-1, matrix.grid.block.rows, matrix.grid.block.cols});
}

BlockDelta::BlockDelta(
    const artifact::TensorMap& from,
    std::string_view part,
    const model::ModelConfig& config)
    : layers_(config.layers.size()) {
  for (const auto& id : stored_weights(from, part, ".index", config)) {
    const std::string key = weight_key(part, id);
    const auto shape = model::weight_shape(config, id);
    FETTLE_ASSERT(shape.size() == 2 && id.layer >= 0);
    const at::Tensor values =
        take_tensor(from, key + ".values", {at::kFloat, {-1, -1, -1}});
    const BlockGrid grid{
        shape[0],
        shape[1],
        {std::max<std::int64_t>(values.size(1), 1),
         std::max<std::int64_t>(values.size(2), 1)}};
    const auto ids = CompactIndex::from_stored(
        take_tensor(from, key + ".index", {at::kByte, {-1}}),
        key + ".index",
        grid.count());
    const ExpectedTensor fitting{
        at::kFloat, {ids.size(), grid.block.rows, grid.block.cols}};
    layers_[id.layer].push_back(
        {id,
         grid,
         ids,
         take_tensor(from, key + ".values", fitting).flatten(1)});
  }
}

const BlockDelta::Matrix* BlockDelta::find(const model::WeightId& id) const {
  if (id.layer < 0) return nullptr;
  for (const Matrix& matrix : layers_[id.layer]) {
    if (matrix.id == id) return &matrix;
  }
  return nullptr;
}

void BlockDelta::patch(std::int64_t layer, model::LayerWeights& weights) const {
  for (const Matrix& matrix : layers_[layer]) {
    const at::Tensor view = model::weight_view(weights, matrix.id);
    scatter_blocks_(
        matrix.grid,
        view,
        matrix.ids.decode().to(view.device()),
        matrix.values.to(view.device()));
  }
}

bool BlockDelta::changes(const model::WeightId& id) const {
  return find(id) != nullptr;
}

at::Tensor BlockDelta::merge(
    const model::WeightId& id, const at::Tensor& base) const {
  const Matrix* matrix = find(id);
  FETTLE_ASSERT(matrix != nullptr);
  at::Tensor merged = base.clone();
  scatter_blocks_(matrix->grid, merged, matrix->ids.decode(), matrix->values);
  return merged;
}

}  // namespace fettle::tune
