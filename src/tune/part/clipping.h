// SPDX-License-Identifier: Apache-2.0
// Clipping of a gradient by its norm, as torch.nn.utils.clip_grad_norm_.
#pragma once

#include <ATen/ATen.h>

#include <algorithm>
#include <cstdint>

#include "tune/part/row_pieces.h"

namespace fettle::tune {

// The square of a gradient's norm, in fp64 where the gradient is, some rows
// along `dim` at a time: [], not waited for.
inline at::Tensor norm_squared(const at::Tensor& gradient, std::int64_t dim) {
  at::Tensor total = at::zeros({}, gradient.options().dtype(at::kDouble));
  for (const auto& [first, count] : row_pieces(gradient, dim)) {
    total.add_(gradient.narrow(dim, first, count).square().sum(at::kDouble));
  }
  return total;
}

// What to multiply a gradient of norm `norm` by so that its norm is at most
// `clip_norm`; 0: any.
inline double clip_scale(double clip_norm, double norm) {
  return clip_norm > 0.0 ? std::min(1.0, clip_norm / (norm + 1e-6)) : 1.0;
}

}  // namespace fettle::tune
