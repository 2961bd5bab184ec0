// SPDX-License-Identifier: Apache-2.0
// The factor of a matrix of second moments that rounding may have left with
// eigenvalues a little below zero. ATen's Cholesky on the CPU; no GPU code.
#pragma once

#include <ATen/ATen.h>

namespace fettle::kernels {

// Lower Cholesky factor of a + damping I in fp64. a: [N, N] symmetric, of any
// type, finite: anything else is an InternalError. damping > 0 grows tenfold
// until the matrix is positive definite, and is left at what it took.
at::Tensor damped_cholesky(const at::Tensor& a, double& damping);

}  // namespace fettle::kernels
