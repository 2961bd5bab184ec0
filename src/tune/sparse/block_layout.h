// SPDX-License-Identifier: Apache-2.0
// The blocks of all matrices of some roles in one layer, numbered through.
#pragma once

#include <cstdint>
#include <functional>
#include <vector>

#include "model/family/weight_table.h"
#include "tune/sparse/blocks.h"

namespace fettle::tune {

struct BlockMatrix {
  model::WeightId id;
  BlockGrid grid;          // of the stored shape
  std::int64_t first = 0;  // number of its first block in the layer
};

class BlockLayout {
 public:
  // Matrices of `roles` in `layer`; an expert of width 0 has none.
  BlockLayout(
      const model::ModelConfig& config,
      std::int64_t layer,
      const std::vector<model::Role>& roles,
      BlockShape block);

  const std::vector<BlockMatrix>& matrices() const { return matrices_; }
  std::int64_t count() const { return count_; }
  // Position in matrices(), or -1.
  std::int64_t find(const model::WeightId& id) const;
  // For each of matrices(), those of ascending `index` [n] that lie in it, as
  // numbers of its own, and where they begin in `index`.
  struct Part {
    std::int64_t first = 0;
    at::Tensor ids;  // [k] int64
  };
  std::vector<Part> split(const at::Tensor& index) const;
  // Visits the parts that split() makes, one after another, but for empty ones.
  using Visit = std::function<void(const BlockMatrix&, const Part&)>;
  void for_each_part(const at::Tensor& index, const Visit& visit) const;
  // Where an ascending index goes on to the next matrix: [matrices + 1].
  std::vector<std::int64_t> ranges(const at::Tensor& index) const;

 private:
  std::vector<BlockMatrix> matrices_;
  std::vector<std::int64_t> offsets_{0};
  std::int64_t count_ = 0;
};

}  // namespace fettle::tune
