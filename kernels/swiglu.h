// SPDX-License-Identifier: Apache-2.0
// The activation of an expert, fused: gated (Shazeer, "GLU Variants Improve
// Transformer", 2020), or of up alone. Arithmetic is float32; dtypes are
// float32, bfloat16 and, on a GPU, float16. Tensors are contiguous. Shapes,
// dtypes or devices that do not fit are InternalErrors.
#pragma once

#include <ATen/ATen.h>

#include "kernels/args.h"

namespace fettle::kernels {

// h = act(gate) · up, or as Activation says otherwise. gate_up is [M, P I], P
// being inputs_of(activation): the gate's columns, then up's, or up's alone.
// The result is [M, I]. Both M and I may be 0.
at::Tensor swiglu(
    const at::Tensor& gate_up, Activation activation = Activation::kSilu);

// The gradient [M, P I] of gate_up from the gradient dh [M, I] of h:
// d_gate = dh · up · act'(gate), d_up = dh · act(gate), or d_up = 2 dh max(up,
// 0). Nothing passes where a value was clamped.
at::Tensor swiglu_backward(
    const at::Tensor& dh,
    const at::Tensor& gate_up,
    Activation activation = Activation::kSilu);

}  // namespace fettle::kernels
