// SPDX-License-Identifier: Apache-2.0
// Rows on a GPU: where they are, how many threads take one, and sums over those
// in a fixed order, right for warps of 32 and of 64.
#pragma once

#include "kernels/gpu/pack.h"

namespace fettle::kernels::gpu {

// Blocks have a multiple of 64 threads, so that every warp is whole.
inline constexpr int kSmallestWarp = 32;
inline constexpr int kLargestWarp = 64;
inline constexpr int kMostThreads = 512;

// row_offset without its division of 64 bits, which costs as much as the work
// on a short row.
__device__ inline std::int64_t offset_of(const Rows& rows, std::uint32_t r) {
  if (rows.heads == 1) return r * rows.token_stride;
  const auto heads = static_cast<std::uint32_t>(rows.heads);
  const std::uint32_t n = r / heads;
  return n * rows.token_stride + (r - n * heads) * rows.head_stride;
}

struct Sum {
  static __device__ float merge(float a, float b) { return a + b; }
  static __device__ float none() { return 0.0f; }
};

// Lets a NaN through.
struct Max {
  static __device__ float merge(float a, float b) {
    return a > b || a != a ? a : b;
  }
  static __device__ float none() { return -INFINITY; }
};

// Every thread gets the merged value of its `lanes` neighbours, a power of two
// of them and no more than a warp has.
template <class Op>
__device__ inline float over_lanes(float v, int lanes) {
  for (int mask = lanes / 2; mask > 0; mask /= 2) {
    v = Op::merge(v, shuffle_xor(v, mask));
  }
  return v;
}

// Every thread gets the merged value of all threads of its warp.
template <class Op>
__device__ inline float over_warp(float v) {
  return over_lanes<Op>(v, warpSize);
}

// Every thread gets the merged value of all threads of the block.
template <class Op>
__device__ inline float over_block(float v) {
  __shared__ float of_warp[kMostThreads / kSmallestWarp];
  v = over_warp<Op>(v);
  const int warps = blockDim.x / warpSize;
  if (threadIdx.x % warpSize == 0) of_warp[threadIdx.x / warpSize] = v;
  __syncthreads();
  float all = Op::none();
  for (int w = 0; w < warps; ++w) all = Op::merge(all, of_warp[w]);
  __syncthreads();  // of_warp is free for the next call
  return all;
}

inline bool aligned16(const void* p) {
  return reinterpret_cast<std::uintptr_t>(p) % 16 == 0;
}

inline bool aligned16(const Rows& rows, std::int64_t value_bytes) {
  return aligned16(rows.data) && rows.token_stride * value_bytes % 16 == 0 &&
         rows.head_stride * value_bytes % 16 == 0;
}

// Threads for a row of `vectors` loads.
inline int threads_for(std::int64_t vectors) {
  int threads = kLargestWarp;
  while (threads < kMostThreads && threads < vectors) threads *= 2;
  return threads;
}

inline unsigned blocks_for(std::int64_t items, int threads) {
  return static_cast<unsigned>((items + threads - 1) / threads);
}

}  // namespace fettle::kernels::gpu
