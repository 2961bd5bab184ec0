// SPDX-License-Identifier: Apache-2.0
// What a trim makes of a packed expert. Rows of gate and up are taken as they
// are packed. Columns of down share scales with those that go, and a repair
// changes their values: what is left is rounded to the nearest levels of the
// same scheme, which loses a little more; quantizing anew from the unpacked
// model loses less.
#pragma once

#include <ATen/ATen.h>

#include <cstdint>
#include <vector>

#include "kernels/packed_matrix.h"
#include "model/weights/packed_weight.h"

namespace fettle::trim {

// The header of a matrix of this scheme and another shape. Coded trits become
// plain ones, whose size is known before they are.
model::PackedHeader resized(
    const model::PackedHeader& header, std::int64_t rows, std::int64_t cols);

// Rows of `matrix`, exactly.
kernels::PackedMatrix select_rows(
    const kernels::PackedMatrix& matrix, const at::Tensor& index);

// `values` [rows, cols] fp32 in the scheme of `header`.
kernels::PackedMatrix rounded_anew(
    const at::Tensor& values, const model::PackedHeader& header);

}  // namespace fettle::trim
