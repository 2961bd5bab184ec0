// SPDX-License-Identifier: Apache-2.0
// One block a row: the maximum, the sum of exponentials, then the gradient.
// Each thread keeps its own running maximum and sum, so the row is read once
// for the value and once more for the gradient.
#include "kernels/gpu/gpu.h"
#include "kernels/gpu/row.h"

namespace fettle::kernels::gpu {
namespace {

// A thread's share of a row: its maximum and Σ e^(x − max).
struct Share {
  float max = -INFINITY;
  float sum = 0.0f;
};

// A share of −∞ alone has no sum to rescale: e^(−∞ + ∞) would be NaN.
__device__ float rescaled(const Share& share, float max) {
  return share.sum == 0.0f ? 0.0f : share.sum * expf(share.max - max);
}

template <int W>
__device__ void add(Share& share, const float (&v)[W]) {
  float max = share.max;
#pragma unroll
  for (int j = 0; j < W; ++j) max = Max::merge(max, v[j]);
  if (max == -INFINITY) return;
  share.sum = rescaled(share, max);
  share.max = max;
#pragma unroll
  for (int j = 0; j < W; ++j) share.sum += expf(v[j] - max);
}

// From the row's end, which was read last: much of it is still in the caches,
// where the rows that are worked on don't all have room.
template <class T, int W>
__device__ void write_gradient(
    const CrossEntropyArgs& a, T* x, std::int64_t target, const Share& row) {
  const float inverse = 1.0f / row.sum;
  const std::int64_t step = blockDim.x * W;
  const std::int64_t last = (a.vocab - 1) / step * step;
  float v[W];
  for (std::int64_t i = last + threadIdx.x * W; i >= 0; i -= step) {
    if (i >= a.vocab) continue;
    load<W>(x + i, v);
#pragma unroll
    for (int j = 0; j < W; ++j) {
      const float p = expf(v[j] - row.max) * inverse;
      v[j] = (p - (i + j == target ? 1.0f : 0.0f)) * a.scale;
    }
    store<W>(v, x + i);
  }
}

template <class T, int W>
__global__ void score(const CrossEntropyArgs a) {
  const std::int64_t r = blockIdx.x;
  const std::int64_t target = a.targets[r];
  T* x = static_cast<T*>(a.logits) + r * a.vocab;
  if (target < 0) {
    if (threadIdx.x == 0) a.nll[r] = 0.0f;
    const float zero[W] = {};
    if (!a.gradient) return;
    for (std::int64_t i = threadIdx.x * W; i < a.vocab; i += blockDim.x * W) {
      store<W>(zero, x + i);
    }
    return;
  }
  Share share;
  float v[W];
  for (std::int64_t i = threadIdx.x * W; i < a.vocab; i += blockDim.x * W) {
    load<W>(x + i, v);
    add(share, v);
  }
  Share row;
  row.max = over_block<Max>(share.max);
  row.sum = over_block<Sum>(rescaled(share, row.max));
  // Read before any thread may overwrite it.
  const float picked = target < a.vocab ? to_float(x[target]) : NAN;
  __syncthreads();
  if (threadIdx.x == 0) {
    // A row of −∞ alone has no distribution.
    const bool empty = row.max == -INFINITY;
    a.nll[r] = empty ? NAN : logf(row.sum) + (row.max - picked);
  }
  if (a.gradient) write_gradient<T, W>(a, x, target, row);
}

}  // namespace

const char* cross_entropy(const CrossEntropyArgs& a, void* stream) {
  with_type(a.dtype, [&](auto type) {
    using T = decltype(type);
    const auto s = static_cast<Stream>(stream);
    const auto rows = static_cast<unsigned>(a.rows);
    if (a.vocab % kWide<T> == 0 && aligned16(a.logits)) {
      const int threads = threads_for(a.vocab / kWide<T>);
      launch(score<T, kWide<T>>, rows, threads, s, a);
    } else {
      launch(score<T, 1>, rows, threads_for(a.vocab), s, a);
    }
  });
  return launch_result();
}

}  // namespace fettle::kernels::gpu
