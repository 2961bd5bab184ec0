// SPDX-License-Identifier: Apache-2.0
// Rows of a plain weight whose elements do not lie side by side in the file: a
// part of a stack in which gate and up take turns, or rows and columns have
// changed places.
#pragma once

#include <ATen/ATen.h>

#include <cstdint>

#include "io/checkpoint.h"
#include "model/weights/weight_index.h"

namespace fettle::model {

// Rows [first, first + rows) of a matrix of `cols` columns; a vector is one
// row, or as many of one column.
struct RowRange {
  std::int64_t first = 0;
  std::int64_t rows = 0;
  std::int64_t cols = 0;
};

// Fills `out`, [rows, cols] contiguous of the stored type, with rows of
// `place`, which has no form.
void read_plain_rows(
    const io::Checkpoint& checkpoint,
    const WeightIndex::Place& place,
    const RowRange& range,
    const at::Tensor& out);

// The bytes from the first element of a weight of this shape to its last.
std::uint64_t plain_extent(
    const WeightIndex::Place& place, std::int64_t rows, std::int64_t cols);

}  // namespace fettle::model
