// SPDX-License-Identifier: Apache-2.0
// Improves the codes that GPTQ chose: scales are fitted to the codes by least
// squares, and each code goes where the error is least while all others stay
// (coordinate descent, as in CDQuant, Nair and Suggala 2024, arXiv 2406.17542).
// GPTQ looks at a column once, and only forward; this looks back.
#pragma once

#include <ATen/ATen.h>

#include <cstdint>

#include "kernels/gptq.h"

namespace fettle::kernels {

// Rows whose equations for scales are solved together have at most so many
// numbers in them (fp64, four copies at most), or are one.
inline constexpr std::int64_t kScaleEquations = std::int64_t{1} << 20;

// All lower tr((W - Ŵ) H (W - Ŵ)ᵀ), Ŵ the values of `quantized`, or leave it as
// it is. w: [R, C] float32; hessian H: [C, C] float32, symmetric, its diagonal
// > 0. Each row is computed by itself.

// Scales by least squares for the codes. One that would change its sign stays;
// a row that would lose by rounding them to bfloat16 stays.
void fit_scales(
    Quantized& quantized,
    const at::Tensor& w,
    const at::Tensor& hessian,
    const QuantGrid& grid);

// Each column's codes once, in ascending order. With an entropy weight, what
// the codes' bits cost counts too.
void descend(
    Quantized& quantized,
    const at::Tensor& w,
    const at::Tensor& hessian,
    const QuantGrid& grid);

// Runs fit_scales and descend in turn, `passes` times.
void refine(
    Quantized& quantized,
    const at::Tensor& w,
    const at::Tensor& hessian,
    const QuantGrid& grid,
    int passes);

}  // namespace fettle::kernels
