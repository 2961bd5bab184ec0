// SPDX-License-Identifier: Apache-2.0
// Choosing few levels for weights: round to nearest, and GPTQ (Frantar et al.
// 2022, arXiv 2210.17323), which makes up for the rounding of one column in the
// columns behind it. Scales are chosen to lose least under the importance of
// each column (the diagonal of the Hessian).
#pragma once

#include <ATen/ATen.h>

#include <cstdint>

#include "kernels/packed_matrix.h"

namespace fettle::kernels {

struct QuantGrid {
  PackedKind kind = PackedKind::kInt;  // or kTernary: levels -s, 0, s
  std::int64_t bits = 4;               // of kInt
  bool symmetric = true;  // else each group has a zero point. Of kInt
  std::int64_t group = 128;
  // For kTernary: what a bit of entropy a weight may cost, as a share of the
  // weights' own square under the importance. 0: least error.
  double entropy_weight = 0;
};

struct QuantInput {
  at::Tensor w;           // [R, C] float32, contiguous; overwritten
  at::Tensor importance;  // [C] float32, >= 0, or undefined: all alike
  // [C, C] float32, upper triangular U with (H + damping)⁻¹ = UᵀU, its columns
  // in `order`; undefined: round to nearest.
  at::Tensor factor = {};
  // int64 [C]: the order in which columns are rounded, where it is not
  // ascending. Scales are then those of the weights as they came.
  at::Tensor order = {};
};

struct Quantized {
  at::Tensor codes;   // uint8 [R, C], of kTernary trit + 1
  at::Tensor scales;  // bfloat16 [R, groups]
  at::Tensor zeros;   // uint8 [R, groups], or undefined
};

// Each row is computed by itself: the same bits whatever the number of threads.
// A weight that is not finite is an InternalError.
Quantized quantize(const QuantInput& input, const QuantGrid& grid);

// The codes, scales and zeros as a packed matrix.
PackedMatrix pack(const Quantized& quantized, const QuantGrid& grid);

}  // namespace fettle::kernels
