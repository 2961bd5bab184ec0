// SPDX-License-Identifier: Apache-2.0
// MLPs of packed matrices over a few rows each, all at once: a layer's chosen
// experts for decoded tokens. On the CPU in float32. Shapes, dtypes or devices
// that do not fit are InternalErrors.
#pragma once

#include <ATen/ATen.h>

#include <cstdint>
#include <span>

#include "kernels/args.h"
#include "kernels/packed_matrix.h"

namespace fettle::kernels {

// down act(gate x, up x), of I neurons. An MLP without neurons has no matrices:
// it gives zeros.
struct PackedMlp {
  // [I, H]; null too where the activation has no gate
  const PackedMatrix* gate = nullptr;
  const PackedMatrix* up = nullptr;           // [I, H]
  const PackedMatrix* down = nullptr;         // [H, I]
  std::span<const std::int64_t> tokens = {};  // the rows of x that it takes
};

struct PackedMlpsOptions {
  Activation activation = Activation::kSilu;
  // What matrices are multiplied by is rounded to int8 where
  // has_rounded_product says that there are such products.
  bool rounds = false;
};

// x [N, H] → [M, H], a row for each token of each MLP, one MLP after the other:
// the values of packed_products, rounded_products and swiglu, in one parallel
// region with three steps. Throws as packed_products does.
at::Tensor packed_mlps(
    const at::Tensor& x,
    std::span<const PackedMlp> mlps,
    const PackedMlpsOptions& options);

}  // namespace fettle::kernels
