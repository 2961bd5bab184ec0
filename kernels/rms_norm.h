// SPDX-License-Identifier: Apache-2.0
// Root mean square norm over the last dimension (Zhang and Sennrich, "Root Mean
// Square Layer Normalization", 2019). x is [N, H] or [N, heads, D]; its last
// dimension is contiguous, the others may be strided. Arithmetic is float32;
// dtypes are float32, bfloat16 and, on a GPU, float16. Shapes, dtypes or
// devices that do not fit are InternalErrors.
#pragma once

#include <ATen/ATen.h>

namespace fettle::kernels {

struct RmsNormResult {
  at::Tensor y;     // x's sizes and dtype, contiguous
  at::Tensor rstd;  // [rows] float32, 1/√(mean(x²) + eps)
};

struct RmsNormOptions {
  double offset = 0.0;  // added to w
};

// y = w · (x·rstd rounded to x's dtype), as transformers computes it. w is [D]
// of x's dtype. With an offset, y = (offset + w)·x·rstd is rounded only then.
RmsNormResult rms_norm(
    const at::Tensor& x,
    const at::Tensor& w,
    double eps,
    const RmsNormOptions& options = {});

struct RmsNormBackwardOptions {
  double offset = 0.0;  // of the forward pass
  bool weight_gradient = false;
};

struct RmsNormGradients {
  at::Tensor dx;  // x's sizes and dtype, contiguous
  at::Tensor dw;  // [D] float32, undefined unless asked for
};

// With g = dy·(offset + w) and x̂ = x·rstd: dx = rstd·(g − x̂·mean(g·x̂)), dw = Σ
// dy·x̂ over rows in a fixed order. dy has x's sizes and may be strided like x.
RmsNormGradients rms_norm_backward(
    const at::Tensor& dy,
    const at::Tensor& x,
    const at::Tensor& w,
    const at::Tensor& rstd,
    const RmsNormBackwardOptions& options = {});

}  // namespace fettle::kernels
