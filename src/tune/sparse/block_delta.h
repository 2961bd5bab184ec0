// SPDX-License-Identifier: Apache-2.0
// Tuned blocks in an adapter. Per matrix that has any, under "PART.layers.LAYER
// .ROLE" (experts: ".ROLE.EXPERT"):
//   .index: [bytes] uint8, numbers of blocks along rows of blocks, as
//     compact_index.h has it
//   .values: [n, r, c] fp32, 0 where a block reaches over the matrix's edge
#pragma once

#include <string_view>
#include <vector>

#include "artifact/tensor_file.h"
#include "tune/part/adapter_part.h"
#include "tune/sparse/block_layout.h"
#include "tune/sparse/compact_index.h"

namespace fettle::tune {

class BlockDelta : public AdapterPart {
 public:
  // Throws UserError on a tensor that doesn't fit `config`.
  BlockDelta(
      const artifact::TensorMap& from,
      std::string_view part,
      const model::ModelConfig& config);

  // ids: [n] int64, values: [n, size of a block].
  static void save_matrix(
      std::string_view part,
      const BlockMatrix& matrix,
      const at::Tensor& ids,
      const at::Tensor& values,
      artifact::TensorMap& into);

  void patch(std::int64_t layer, model::LayerWeights& weights) const override;
  bool changes(const model::WeightId& id) const override;
  at::Tensor merge(
      const model::WeightId& id, const at::Tensor& base) const override;

 private:
  struct Matrix {
    model::WeightId id;
    BlockGrid grid;
    CompactIndex ids;
    at::Tensor values;  // [n, size of a block]
  };
  const Matrix* find(const model::WeightId& id) const;

  std::vector<std::vector<Matrix>> layers_;
};

}  // namespace fettle::tune
