// SPDX-License-Identifier: Apache-2.0
// Moving tokens to the rows of their experts and the experts' rows back. A
// token n chose K experts; position[n, k] is the row of its k-th choice among
// all M rows, each row belonging to one choice, or −1 for a choice that has no
// row. Sums run over k in order: no atomics, the same bits every time.
//
// Values are float32, bfloat16 or, on a GPU, float16; weights and sums are
// float32; index and position int32 or int64. Tensors are contiguous. Shapes,
// dtypes or devices that do not fit, K over 64 and, on the CPU, an index out of
// range are InternalErrors; a GPU can't check its indices.
#pragma once

#include <ATen/ATen.h>

namespace fettle::kernels {

// [M, H] of x [N, H] and index [M]: row m is x[index[m]].
at::Tensor gather_rows(const at::Tensor& x, const at::Tensor& index);

// dx [N, H] of gather_rows: Σ_k d_rows[position[n, k]] for d_rows [M, H].
at::Tensor gather_rows_backward(
    const at::Tensor& d_rows, const at::Tensor& position);

// y [N, H]: Σ_k weights[n, k] · rows[position[n, k]] for rows [M, H], position
// [N, K] and weights [N, K] float32.
at::Tensor combine(
    const at::Tensor& rows,
    const at::Tensor& position,
    const at::Tensor& weights);

struct CombineGradients {
  at::Tensor d_rows;     // [M, H], 0 in rows that no position names
  at::Tensor d_weights;  // [N, K] float32, 0 where the position is −1
};

// d_rows[position[n, k]] = weights[n, k] · dy[n] and
// d_weights[n, k] = ⟨dy[n], rows[position[n, k]]⟩ for dy [N, H].
CombineGradients combine_backward(
    const at::Tensor& dy,
    const at::Tensor& rows,
    const at::Tensor& position,
    const at::Tensor& weights);

}  // namespace fettle::kernels
