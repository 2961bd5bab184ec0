// SPDX-License-Identifier: Apache-2.0
// W neighbouring values on a GPU: loaded and stored at once, held as they are
// in memory, computed with as floats.
#pragma once

#include <type_traits>

#include "kernels/gpu/values.h"

namespace fettle::kernels::gpu {

// 16 bytes, the widest load there is.
template <class T>
inline constexpr int kWide = 16 / sizeof(T);

template <class T, int W>
struct alignas(W * sizeof(T)) Pack {
  T values[W];
};

// Pairs stay in one register each while a pack is held.
template <int W>
  requires(W % 2 == 0)
struct alignas(W * sizeof(Bf16)) Pack<Bf16, W> {
  std::uint32_t pairs[W / 2];
};

template <int W, class T>
__device__ inline Pack<T, W> pack_at(const T* p) {
  return *reinterpret_cast<const Pack<T, W>*>(p);
}

template <class T, int W>
__device__ inline void put(const Pack<T, W>& pack, T* p) {
  *reinterpret_cast<Pack<T, W>*>(p) = pack;
}

// Rounds as from_float does, but for a NaN's bits. NVIDIA's cards from Ampere
// on do it in one instruction, where from_float takes a dozen.
__device__ inline std::uint32_t bf16_pair(float low, float high) {
#if defined(__CUDA_ARCH__) && __CUDA_ARCH__ >= 800
  std::uint32_t pair;
  asm("cvt.rn.bf16x2.f32 %0, %1, %2;" : "=r"(pair) : "f"(high), "f"(low));
  return pair;
#else
  const std::uint32_t upper = from_float<Bf16>(high).bits;
  return upper << 16 | from_float<Bf16>(low).bits;
#endif
}

template <class T, int W>
inline constexpr bool kPaired = std::is_same_v<T, Bf16> && W % 2 == 0;

template <class T, int W>
__device__ inline void widen(const Pack<T, W>& pack, float (&out)[W]) {
#pragma unroll
  for (int j = 0; j < W; ++j) {
    if constexpr (kPaired<T, W>) {
      const std::uint32_t pair = pack.pairs[j / 2];
      out[j] = __uint_as_float(j % 2 == 0 ? pair << 16 : pair & 0xffff0000u);
    } else {
      out[j] = to_float(pack.values[j]);
    }
  }
}

template <class T, int W>
__device__ inline Pack<T, W> narrow(const float (&in)[W]) {
  Pack<T, W> pack;
  if constexpr (kPaired<T, W>) {
#pragma unroll
    for (int j = 0; j < W; j += 2) {
      pack.pairs[j / 2] = bf16_pair(in[j], in[j + 1]);
    }
  } else {
#pragma unroll
    for (int j = 0; j < W; ++j) pack.values[j] = from_float<T>(in[j]);
  }
  return pack;
}

template <int W, class T>
__device__ inline void load(const T* p, float (&out)[W]) {
  widen(pack_at<W>(p), out);
}

template <int W, class T>
__device__ inline void store(const float (&in)[W], T* p) {
  put(narrow<T>(in), p);
}

}  // namespace fettle::kernels::gpu
