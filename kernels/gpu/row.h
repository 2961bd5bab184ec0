// SPDX-License-Identifier: Apache-2.0
// Rows on a GPU: loads and stores of W values at once, and sums over the
// threads of a block in a fixed order, right for warps of 32 and of 64.
#pragma once

#include "kernels/gpu/values.h"

namespace fettle::kernels::gpu {

// Blocks have a multiple of 64 threads, so that every warp is whole.
inline constexpr int kLargestWarp = 64;
inline constexpr int kMostThreads = 512;

// 16 bytes, the widest load there is.
template <class T>
inline constexpr int kWide = 16 / sizeof(T);

template <class T, int W>
struct alignas(W * sizeof(T)) Pack {
  T values[W];
};

template <int W, class T>
__device__ inline void load(const T* p, float (&out)[W]) {
  const Pack<T, W> pack = *reinterpret_cast<const Pack<T, W>*>(p);
#pragma unroll
  for (int j = 0; j < W; ++j) out[j] = to_float(pack.values[j]);
}

template <int W, class T>
__device__ inline void store(const float (&in)[W], T* p) {
  Pack<T, W> pack;
#pragma unroll
  for (int j = 0; j < W; ++j) pack.values[j] = from_float<T>(in[j]);
  *reinterpret_cast<Pack<T, W>*>(p) = pack;
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

// Every thread gets the merged value of all threads of its warp.
template <class Op>
__device__ inline float over_warp(float v) {
  for (int mask = warpSize / 2; mask > 0; mask /= 2) {
    v = Op::merge(v, shuffle_xor(v, mask));
  }
  return v;
}

// Every thread gets the merged value of all threads of the block.
template <class Op>
__device__ inline float over_block(float v) {
  __shared__ float of_warp[kMostThreads / 32];
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
