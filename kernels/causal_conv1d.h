// SPDX-License-Identifier: Apache-2.0
// Short causal convolution of each channel by itself, over packed sequences:
// nothing before a sequence's start is seen. It stands before the gated delta
// rule and Mamba-2, with silu behind it (Gu and Dao, "Mamba", 2023, section
// 3.4). dtypes are float32, bfloat16 and, on a GPU, float16; arithmetic is
// float32. Shapes, dtypes or devices that do not fit are InternalErrors.
#pragma once

#include <ATen/ATen.h>

#include <cstdint>
#include <vector>

namespace fettle::kernels {

struct ConvolutionWeights {
  at::Tensor weight;  // [C, W], W from 2 to 8; the last column is a token's own
  at::Tensor bias;    // [C], or undefined
};

struct ConvolutionOptions {
  // [B + 1] token offsets of the sequences, from 0 to N.
  std::vector<std::int64_t> starts;
  bool silu = false;
  // [B, W - 1, C] of x's dtype, or undefined: the inputs that came before each
  // sequence, oldest first (zeros where there were none). Overwritten with the
  // last W - 1 inputs, so that the next tokens can follow.
  at::Tensor state;
};

// y[n] = act(bias + Σ_w weight[:, w] · x[n - (W - 1) + w]), [N, C] contiguous,
// of x's dtype. x: [N, C], its rows may be strided; weights of x's dtype.
at::Tensor causal_conv1d(
    const at::Tensor& x,
    const ConvolutionWeights& weights,
    const ConvolutionOptions& options);

struct ConvolutionGradients {
  at::Tensor dx;       // [N, C] contiguous, of x's dtype
  at::Tensor dweight;  // [C, W] float32
  at::Tensor dbias;    // [C] float32, undefined without a bias
};

// The gradients from that of y, which may be strided like x. Sums over tokens
// have a fixed order. Sequences begin at their starts: options.state must be
// undefined.
ConvolutionGradients causal_conv1d_backward(
    const at::Tensor& dy,
    const at::Tensor& x,
    const ConvolutionWeights& weights,
    const ConvolutionOptions& options);

}  // namespace fettle::kernels
