// SPDX-License-Identifier: Apache-2.0
// Rotary position embedding (Su et al., "RoFormer", 2021). x is [N, heads, D],
// its last dimension contiguous and the others strided as they may be, of
// float32, bfloat16 or, on a GPU, float16; arithmetic is float32. cos and sin
// are [N, R/2] float32, contiguous: each token's row of the tables, R ≤ D the
// number of rotated dimensions. Shapes, dtypes or devices that do not fit are
// InternalErrors.
#pragma once

#include <ATen/ATen.h>

#include "kernels/args.h"

namespace fettle::kernels {

struct RopeOptions {
  // Half pairs dimension i with i + R/2 (GPT-NeoX, Llama, Qwen), interleaved 2i
  // with 2i + 1 (GPT-J, DeepSeek's checkpoints). Either keeps the order.
  RopePairing pairing = RopePairing::kHalf;
  // The first rotated dimension of a head; those outside are copied.
  std::int64_t start = 0;
};

// A pair (a, b) becomes (a·cos − b·sin, b·cos + a·sin). Returns a new
// contiguous tensor of x's sizes.
at::Tensor rope(
    const at::Tensor& x,
    const at::Tensor& cos,
    const at::Tensor& sin,
    const RopeOptions& options = {});

// The gradient of x from that of rope's result: the rotation by −angle. It is
// also the inverse where cos² + sin² = 1 (some tables carry a factor).
at::Tensor rope_backward(
    const at::Tensor& dy,
    const at::Tensor& cos,
    const at::Tensor& sin,
    const RopeOptions& options = {});

}  // namespace fettle::kernels
