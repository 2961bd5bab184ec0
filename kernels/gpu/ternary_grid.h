// SPDX-License-Identifier: Apache-2.0
// Thresholds to choose from for a group of trits, as
// kernels/cpu/ternary_grid-inl.h has them; a thread tries one on the whole
// group.
#pragma once

#include "kernels/gpu/rounding.h"

namespace fettle::kernels::gpu {

__device__ inline float plogp(float p) { return p > 0 ? p * log2f(p) : 0; }

__device__ inline Candidate ternary_candidate(
    const Group& g, const GridArgs& grid, int step) {
  float square = 0, weight = 0;
  for (std::int64_t j = 0; j < g.cols; ++j) {
    square += g.w[j] * g.w[j] * g.importance[j];
    weight += g.importance[j];
  }
  const float rms = sqrtf(square / fmaxf(weight, 1e-30f));
  const float nearest = grid.entropy_weight > 0 ? kNearestWhereBitsCount : 0;
  const float share = static_cast<float>(step) / static_cast<float>(grid.steps);
  const float threshold = rms * (nearest + (kFarthest - nearest) * share);
  float size = 0, mass = 0, count = 0;
  for (std::int64_t j = 0; j < g.cols; ++j) {
    const float w = fabsf(g.w[j]);
    if (!(w > threshold)) continue;
    size += g.importance[j] * w;
    mass += g.importance[j];
    count += 1;
  }
  const float scale = to_bf16(size * reciprocal(mass));
  const float gained = scale * (2 * size - scale * mass);
  const float p = count / static_cast<float>(g.cols);
  const float bits = p - plogp(p) - plogp(1 - p);
  return {
      {scale, threshold},
      grid.entropy_weight * bits + (square - gained) * reciprocal(square)};
}

}  // namespace fettle::kernels::gpu
