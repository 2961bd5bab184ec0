// SPDX-License-Identifier: Apache-2.0
// Stands in for kernels/gpu/runtime.h where kernels are compiled for the CPU:
// what they use of a vendor's language, on emulator.h.
#pragma once

#include <c10/util/Half.h>

#include <bit>
#include <cmath>
#include <cstdint>
#include <cstdlib>

#include "emulator.h"

#define __global__
#define __host__
#define __device__
#define __launch_bounds__(...)
// A launch is over before the next begins, and its blocks run one by one.
#define __shared__ static

namespace fettle::kernels::gpu {

using Stream = void*;
using __half = c10::Half;
using emulated::dim3;

inline const emulated::Index &threadIdx = emulated::place.thread,
                             &blockIdx = emulated::place.block,
                             &blockDim = emulated::place.threads,
                             &gridDim = emulated::place.blocks;
inline const int& warpSize = emulated::place.warp;

inline const char* launch_result() { return nullptr; }
// $FETTLE_EMULATED_CARD_CAPABILITY, or else Hopper's.
inline int runtime_compute_capability(int) {
  const char* told = std::getenv("FETTLE_EMULATED_CARD_CAPABILITY");
  return told == nullptr ? 90 : std::atoi(told);
}

inline const char* runtime_device_count(int* count) {
  *count = 1;
  return nullptr;
}

inline void __syncthreads() { emulated::wait_for_block(); }
inline void __threadfence_block() {}
inline float shuffle_xor(float v, int mask) {
  return emulated::shuffle_xor(v, mask);
}

inline float __half2float(__half v) { return v; }
inline __half __float2half_rn(float v) { return v; }
inline std::uint32_t __float_as_uint(float v) {
  return std::bit_cast<std::uint32_t>(v);
}
inline float __uint_as_float(std::uint32_t v) {
  return std::bit_cast<float>(v);
}
inline int __float_as_int(float v) { return std::bit_cast<int>(v); }
inline float __int_as_float(int v) { return std::bit_cast<float>(v); }
inline int __ffs(int v) { return __builtin_ffs(v); }
inline float __expf(float v) { return std::exp(v); }
inline float __fdividef(float a, float b) { return a / b; }

template <class... Parameters, class... Args>
void launch(
    void (*kernel)(Parameters...),
    dim3 blocks,
    int threads,
    Stream stream,
    const Args&... args) {
  emulated::card.begin(stream);
  emulated::run(blocks, threads, [&] { kernel(args...); });
  emulated::card.end();
}

}  // namespace fettle::kernels::gpu
