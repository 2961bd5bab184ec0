// SPDX-License-Identifier: Apache-2.0
// Reads stored matrices into tensors: converts, transposes and checks them
// piece by piece, on all threads, so that beside the result only a few
// megabytes a thread are held.
#pragma once

#include <ATen/ATen.h>

#include <span>

#include "io/checkpoint.h"
#include "model/weights/weight_index.h"

namespace fettle::model {

at::ScalarType scalar_type(io::DType dtype);  // of F32, BF16 and F16

// A weight of `rows` x `cols` elements (a vector: one row), row-major in the
// file, or as many of its rows, to be read into `into`: [rows, cols], or
// [cols, rows] when transposed. `into` may be a view of rows of a larger
// tensor.
struct WeightCopy {
  WeightIndex::Place from;
  at::Tensor into;
  bool transposed = false;
  std::int64_t first_row = 0;  // of those that are read
};

// Throws UserError naming the tensor when a weight is NaN or infinite, or
// becomes so in the type it is converted to.
void load_weights(
    const io::Checkpoint& checkpoint, std::span<const WeightCopy> copies);

}  // namespace fettle::model
