// SPDX-License-Identifier: Apache-2.0
// The product of a few rows with a matrix, whose sums have an order of their
// own, however many rows there are: decoded tokens come out in the same bits
// alone and beside others, which libraries' products do not give. For the CPU
// in float32. Shapes, dtypes or devices that do not fit are InternalErrors.
#pragma once

#include <ATen/ATen.h>

namespace fettle::kernels {

// Whether row_product takes them: float32 on the CPU, w also bfloat16, the rows
// of x contiguous, and those of w or its columns.
bool has_row_product(const at::Tensor& x, const at::Tensor& w);

// x w [n, M], for x [n, K] and w [K, M]. Each value is one sum over K, by lanes
// of a vector where w's columns are contiguous, and else in order.
at::Tensor row_product(const at::Tensor& x, const at::Tensor& w);

// The same into y [n, M], whose rows are contiguous.
void row_product_into(
    const at::Tensor& y, const at::Tensor& x, const at::Tensor& w);

}  // namespace fettle::kernels
