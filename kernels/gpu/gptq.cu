// SPDX-License-Identifier: Apache-2.0
// A block of threads takes a row, a thread a column: it rounds the column when
// its turn comes, and hears of the losses of those before.
#include "kernels/gpu/gpu.h"
#include "kernels/gpu/int_grid.h"
#include "kernels/gpu/ternary_grid.h"

namespace fettle::kernels::gpu {
namespace {

constexpr int kMostCols = static_cast<int>(kGptqColumns);
constexpr int kMostSteps = 64;  // threads of a block, at least

// By all threads of a block; all get the levels.
__device__ Levels fit(const Group& g, const GridArgs& grid) {
  __shared__ Candidate found[kMostSteps];
  const int step = static_cast<int>(threadIdx.x);
  if (step < grid.steps) {
    found[step] = grid.ternary ? ternary_candidate(g, grid, step)
                               : int_candidate(g, grid, step);
  }
  __syncthreads();
  Candidate best = found[0];
  for (int i = 1; i < grid.steps; ++i) keep_better(best, found[i]);
  __syncthreads();  // `found` is free for the next group
  if (grid.ternary) return best.levels;
  keep_better(best, refined(g, grid, best.levels));
  keep_better(best, refined(g, grid, best.levels));
  return best.levels;
}

__global__ void fit_rows(const FitGridArgs a) {
  const std::int64_t row = blockIdx.x;
  const Levels levels =
      fit({a.w + row * a.w_stride, a.importance, a.cols}, a.grid);
  if (threadIdx.x != 0) return;
  a.scales[row * a.groups] = levels.scale;
  (a.grid.ternary ? a.thresholds : a.zeros)[row * a.groups] = levels.zero;
}

// The levels of the group that begins at column j of the block, or those that
// were found before.
__device__ Levels levels_at(
    const GptqBlockArgs& a, std::int64_t row, int j, float* shown, float w) {
  const std::int64_t at = row * a.groups + a.group_of[j];
  float* zeros = a.grid.ternary ? a.thresholds : a.zeros;
  if (a.fit_group == 0 || j % a.fit_group != 0) {
    return {a.scales[at], zeros[at]};
  }
  const int t = static_cast<int>(threadIdx.x);
  if (t < a.cols) shown[t] = w;
  __syncthreads();
  const std::int64_t left = a.cols - j;
  const Levels levels = fit(
      {shown + j, a.importance + j, a.fit_group < left ? a.fit_group : left},
      a.grid);
  __syncthreads();
  if (t == 0) {
    a.scales[at] = levels.scale;
    zeros[at] = levels.zero;
  }
  return levels;
}

struct Step {
  float code, passed;
};

__device__ inline Step gptq_step(
    const GridArgs& grid, Levels l, float w, float pivot) {
  const float code = code_of(grid, l, w);
  return {code, (w - value_of(grid, l, code)) * (1.0f / pivot)};
}

__device__ inline Step descent_step(
    const GridArgs& grid, Levels l, float slope, float old, float curvature) {
  const float was = value_of(grid, l, old);
  const float best = slope * (1.0f / curvature) + was;
  const Levels by = at_curvature(grid, l, curvature);
  const float code = l.scale != 0 ? code_of(grid, by, best) : old;
  return {code, value_of(grid, l, code) - was};
}

__global__ void step_rows(const GptqBlockArgs a) {
  __shared__ float shown[kMostCols];
  __shared__ float passed[2];  // by turns: one is read while one is written
  const std::int64_t row = blockIdx.x;
  const int t = static_cast<int>(threadIdx.x);
  const bool mine = t < a.cols;
  float w = mine ? a.w[row * a.stride + t] : 0;
  float code = mine && a.descent ? a.codes[row * a.stride + t] : 0;
  Levels levels{0, 0};
  for (int j = 0; j < a.cols; ++j) {
    if (j == 0 || a.group_of[j] != a.group_of[j - 1]) {
      levels = levels_at(a, row, j, shown, w);
    }
    const float* factor =
        a.factor == nullptr ? nullptr : a.factor + j * a.stride;
    if (t == j) {
      const float pivot = factor == nullptr ? 1.0f : factor[j];
      const Step step = a.descent ? descent_step(a.grid, levels, w, code, pivot)
                                  : gptq_step(a.grid, levels, w, pivot);
      code = step.code;
      w = step.passed;
      passed[j % 2] = step.passed;
    }
    if (factor == nullptr) continue;
    __syncthreads();
    if (mine && t > j) w -= passed[j % 2] * factor[t];
  }
  if (!mine) return;
  a.codes[row * a.stride + t] = static_cast<std::uint8_t>(code);
  if (a.errors != nullptr) a.errors[row * a.cols + t] = w;
}

}  // namespace

const char* fit_grid(const FitGridArgs& a, void* stream) {
  if (a.rows == 0) return nullptr;
  if (a.grid.steps > kMostSteps) return "more steps than threads";
  launch(
      fit_rows,
      static_cast<unsigned>(a.rows),
      kMostSteps,
      static_cast<Stream>(stream),
      a);
  return launch_result();
}

const char* gptq_block(const GptqBlockArgs& a, void* stream) {
  if (a.rows == 0) return nullptr;
  if (a.cols > kMostCols || a.grid.steps > kMostSteps) {
    return "more columns or steps than threads";
  }
  const int threads = a.cols <= 64 ? 64 : kMostCols;
  launch(
      step_rows,
      static_cast<unsigned>(a.rows),
      threads,
      static_cast<Stream>(stream),
      a);
  return launch_result();
}

}  // namespace fettle::kernels::gpu
