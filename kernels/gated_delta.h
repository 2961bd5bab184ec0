// SPDX-License-Identifier: Apache-2.0
// The gated delta rule over packed sequences (Yang, Kautz and Hatamizadeh,
// "Gated Delta Networks", arXiv:2412.06464, as Qwen3-Next has it). Each value
// head keeps a state S [Dk, Dv] that starts at zero; with q̂ = q / √(|q|² + eps)
// / √Dk and k̂ = k / √(|k|² + eps), token by token:
//   S = e^g S;  u = beta (v - Sᵀ k̂);  S = S + k̂ uᵀ;  o = Sᵀ q̂.
// Sequences are computed in chunks of 64 tokens, as products (section 3.3).
// Arithmetic is float32. Shapes, dtypes or devices that do not fit are
// InternalErrors.
#pragma once

#include <ATen/ATen.h>

#include <cstdint>
#include <vector>

namespace fettle::kernels {

// Tensors of one device; q, k and v of one dtype (float32, bfloat16 or, on a
// GPU, float16), their last dimension contiguous, the others maybe strided. Hv
// is a multiple of Hk, and value head h reads key head h / (Hv / Hk).
struct GatedDeltaInputs {
  at::Tensor q;     // [N, Hk, Dk]
  at::Tensor k;     // [N, Hk, Dk]
  at::Tensor v;     // [N, Hv, Dv]
  at::Tensor g;     // [N, Hv] float32, logarithm of the decay, at most 0
  at::Tensor beta;  // [N, Hv] float32, how much of a value is written
};

struct GatedDeltaOptions {
  // [B + 1] token offsets of the sequences, from 0 to N.
  std::vector<std::int64_t> starts;
  double eps = 1e-6;  // of the norms of q and k
  // [B, Hv, Dk, Dv] float32 contiguous, or undefined: the states to start from,
  // overwritten with the states behind the last tokens.
  at::Tensor state;
};

// o: [N, Hv, Dv] contiguous, of v's dtype.
at::Tensor gated_delta(
    const GatedDeltaInputs& inputs, const GatedDeltaOptions& options);

// Gradients have the inputs' sizes and dtypes, contiguous.
struct GatedDeltaGradients {
  at::Tensor dq, dk, dv, dg, dbeta;
};

// The gradients of the inputs from that of o, which is of v's dtype and may be
// strided like v. Nothing is kept from the forward pass: the states before the
// chunks are computed anew (Hv Dk Dv / 16 bytes a token while it runs).
// Sequences start from zero: options.state must be undefined.
GatedDeltaGradients gated_delta_backward(
    const at::Tensor& d_out,
    const GatedDeltaInputs& inputs,
    const GatedDeltaOptions& options);

}  // namespace fettle::kernels
