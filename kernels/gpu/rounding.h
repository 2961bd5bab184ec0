// SPDX-License-Identifier: Apache-2.0
// A group of columns and rounding to its levels, as kernels/cpu/rounding-inl.h
// has them.
#pragma once

#include "kernels/gptq_args.h"
#include "kernels/gpu/values.h"

namespace fettle::kernels::gpu {

// Of kInt scale and zero, of ternary scale and threshold (in `zero`).
struct Levels {
  float scale, zero;
};

__device__ inline float reciprocal(float v) { return v != 0 ? 1 / v : 0; }
__device__ inline float to_bf16(float v) {
  return to_float(from_float<Bf16>(v));
}

__device__ inline float code_of(const GridArgs& grid, Levels l, float w) {
  if (grid.ternary) {
    return fabsf(w) > l.zero ? copysignf(1.0f, w) + 1.0f : 1.0f;
  }
  const float top = static_cast<float>((1 << grid.bits) - 1);
  const float q = rintf(w * reciprocal(l.scale)) + l.zero;
  return fminf(fmaxf(q, 0.0f), top);
}

__device__ inline float value_of(const GridArgs& grid, Levels l, float code) {
  return (code - (grid.ternary ? 1.0f : l.zero)) * l.scale;
}

// What a weight moves to by descent: as kernels/cpu/rounding-inl.h says of
// at_curvature.
__device__ inline Levels at_curvature(
    const GridArgs& grid, Levels l, float curvature) {
  if (!grid.ternary) return l;
  const float cost = l.zero * reciprocal(2 * l.scale * curvature);
  return {l.scale, cost + 0.5f * l.scale};
}

struct Group {
  const float* w;
  const float* importance;
  std::int64_t cols;
};

__device__ inline float rounding_error(
    const Group& g, const GridArgs& grid, Levels l) {
  float sum = 0;
  for (std::int64_t j = 0; j < g.cols; ++j) {
    const float d = g.w[j] - value_of(grid, l, code_of(grid, l, g.w[j]));
    sum += d * d * g.importance[j];
  }
  return sum;
}

struct Candidate {
  Levels levels;
  float cost;
};

__device__ inline void keep_better(Candidate& best, const Candidate& other) {
  if (other.cost < best.cost) best = other;
}

}  // namespace fettle::kernels::gpu
