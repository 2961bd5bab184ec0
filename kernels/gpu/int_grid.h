// SPDX-License-Identifier: Apache-2.0
// Scales, and zero points, to choose from for a group of integers of few bits,
// as kernels/cpu/int_grid-inl.h has them; a thread tries one on the whole
// group.
#pragma once

#include "kernels/gpu/rounding.h"

namespace fettle::kernels::gpu {

// The scale that fits the codes best once they are chosen.
__device__ inline Candidate refined(
    const Group& g, const GridArgs& grid, Levels l) {
  float top = 0, bottom = 0;
  for (std::int64_t j = 0; j < g.cols; ++j) {
    const float level = code_of(grid, l, g.w[j]) - l.zero;
    top += level * g.importance[j] * g.w[j];
    bottom += level * g.importance[j] * level;
  }
  const Levels fitted{bottom > 0 ? to_bf16(top / bottom) : l.scale, l.zero};
  return {fitted, rounding_error(g, grid, fitted)};
}

// The candidates of a step: one, or a scale of either sign.
__device__ inline Candidate int_candidate(
    const Group& g, const GridArgs& grid, int step) {
  float low = 0, high = 0;
  for (std::int64_t j = 0; j < g.cols; ++j) {
    low = fminf(low, g.w[j]);
    high = fmaxf(high, g.w[j]);
  }
  const float top = static_cast<float>((1 << grid.bits) - 1);
  const float half = static_cast<float>(1 << (grid.bits - 1));
  const int gaps = grid.steps > 1 ? grid.steps - 1 : 1;
  const float share = 1.0f - (1.0f - grid.least_share) *
                                 static_cast<float>(step) /
                                 static_cast<float>(gaps);
  if (grid.symmetric) {
    const float scale = to_bf16(fmaxf(-low, high) * (share / (half - 0.5f)));
    const Levels levels{scale, half}, mirrored{-scale, half};
    Candidate best{levels, rounding_error(g, grid, levels)};
    if (grid.bits <= 3) {
      keep_better(best, {mirrored, rounding_error(g, grid, mirrored)});
    }
    return best;
  }
  const float scale = to_bf16((high - low) * (share / top));
  const float zero = rintf(-(low * share) * reciprocal(scale));
  const Levels levels{scale, fminf(fmaxf(zero, 0.0f), top)};
  return {levels, rounding_error(g, grid, levels)};
}

}  // namespace fettle::kernels::gpu
