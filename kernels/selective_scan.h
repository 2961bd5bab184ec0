// SPDX-License-Identifier: Apache-2.0
// The selective scan of Mamba-2 over packed sequences (Dao and Gu,
// "Transformers are SSMs", arXiv:2405.21060). Each head keeps a state h [S, P]
// that starts at zero; token by token, with B and C of the head's group:
//   h = e^(dt A) h + dt B xᵀ;  y = hᵀ C + D x.
// Sequences are computed in chunks of 64 tokens, as products (section 6).
// Arithmetic is float32. Shapes, dtypes or devices that do not fit are
// InternalErrors.
#pragma once

#include <ATen/ATen.h>

#include <cstdint>
#include <vector>

namespace fettle::kernels {

// Tensors of one device; x, b and c of one dtype (float32, bfloat16 or, on a
// GPU, float16), their last dimension contiguous, the others maybe strided. The
// number of heads is a multiple of G, and head h reads group h / (heads / G).
struct SelectiveScanInputs {
  at::Tensor x;   // [N, heads, P]
  at::Tensor dt;  // [N, heads] float32, the steps: at least 0
  at::Tensor a;   // [heads] float32, at most 0
  at::Tensor b;   // [N, G, S]
  at::Tensor c;   // [N, G, S]
  at::Tensor d;   // [heads] float32
};

struct SelectiveScanOptions {
  // [B + 1] token offsets of the sequences, from 0 to N.
  std::vector<std::int64_t> starts;
  // [B, heads, S, P] float32 contiguous, or undefined: the states to start
  // from, overwritten with the states behind the last tokens.
  at::Tensor state;
};

// y: [N, heads, P] contiguous, of x's dtype.
at::Tensor selective_scan(
    const SelectiveScanInputs& inputs, const SelectiveScanOptions& options);

// Gradients have the inputs' sizes and dtypes, contiguous. Sums over tokens
// have a fixed order.
struct SelectiveScanGradients {
  at::Tensor dx, ddt, da, db, dc, dd;
};

// The gradients of the inputs from that of y, which is of x's dtype and may be
// strided like x. Nothing is kept from the forward pass: the states before the
// chunks are computed anew (heads S P / 16 bytes a token while it runs).
// Sequences start from zero: options.state must be undefined.
SelectiveScanGradients selective_scan_backward(
    const at::Tensor& dy,
    const SelectiveScanInputs& inputs,
    const SelectiveScanOptions& options);

}  // namespace fettle::kernels
