// SPDX-License-Identifier: Apache-2.0
// One thread for a pair, or for a dimension that is only copied.
#include "kernels/gpu/gpu.h"
#include "kernels/gpu/row.h"

namespace fettle::kernels::gpu {
namespace {

constexpr int kThreads = 256;

// Pairs of a head, then its dimensions outside the rotated ones.
__host__ __device__ std::int64_t items_of_head(const RopeArgs& a) {
  return a.head_size - a.rotated / 2;
}

template <class T>
__global__ void rotate(const RopeArgs a) {
  const std::int64_t item =
      static_cast<std::int64_t>(blockIdx.x) * kThreads + threadIdx.x;
  const std::int64_t per_head = items_of_head(a);
  const std::int64_t r = item / per_head;
  if (r >= a.tokens * a.x.heads) return;
  const std::int64_t i = item % per_head;
  const std::int64_t half = a.rotated / 2;
  const T* x = static_cast<const T*>(a.x.data) + row_offset(a.x, r);
  T* y = static_cast<T*>(a.y) + r * a.head_size;
  if (i >= half) {
    const std::int64_t outside = i - half;
    const std::int64_t d = outside < a.start ? outside : outside + a.rotated;
    y[d] = x[d];
    return;
  }
  const bool halves = a.pairing == RopePairing::kHalf;
  const std::int64_t first = a.start + (halves ? i : 2 * i);
  const std::int64_t second = first + (halves ? half : 1);
  const std::int64_t n = r / a.x.heads;
  const float c = a.cos[n * half + i];
  const float s = a.sin[n * half + i] * a.sign;
  const float u = to_float(x[first]);
  const float v = to_float(x[second]);
  y[first] = from_float<T>(u * c - v * s);
  y[second] = from_float<T>(v * c + u * s);
}

}  // namespace

const char* rope(const RopeArgs& a, void* stream) {
  with_type(a.dtype, [&](auto type) {
    using T = decltype(type);
    const std::int64_t items = a.tokens * a.x.heads * items_of_head(a);
    const unsigned blocks = blocks_for(items, kThreads);
    launch(rotate<T>, blocks, kThreads, static_cast<Stream>(stream), a);
  });
  return launch_result();
}

}  // namespace fettle::kernels::gpu
