// SPDX-License-Identifier: Apache-2.0
// Clipping of a gradient by its norm, as torch.nn.utils.clip_grad_norm_.
#pragma once

#include <algorithm>

namespace fettle::tune {

// What to multiply a gradient of norm `norm` by so that its norm is at most
// `clip_norm`; 0: any.
inline double clip_scale(double clip_norm, double norm) {
  return clip_norm > 0.0 ? std::min(1.0, clip_norm / (norm + 1e-6)) : 1.0;
}

}  // namespace fettle::tune
