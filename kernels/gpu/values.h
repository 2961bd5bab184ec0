// SPDX-License-Identifier: Apache-2.0
// Types of values on a GPU, with conversions from and to float.
#pragma once

#include <cstdint>

#include "kernels/args.h"
#include "kernels/gpu/runtime.h"

namespace fettle::kernels::gpu {

using Half = __half;

// Its own type, since the vendors' differ: the upper half of a float's bits.
struct Bf16 {
  std::uint16_t bits;
};

__device__ inline float to_float(float v) { return v; }
__device__ inline float to_float(Half v) { return __half2float(v); }
__device__ inline float to_float(Bf16 v) {
  return __uint_as_float(static_cast<std::uint32_t>(v.bits) << 16);
}

template <class T>
__device__ T from_float(float v);
template <>
__device__ inline float from_float<float>(float v) {
  return v;
}
template <>
__device__ inline Half from_float<Half>(float v) {
  return __float2half_rn(v);
}
// Nearest, ties to even; a NaN stays one.
template <>
__device__ inline Bf16 from_float<Bf16>(float v) {
  const std::uint32_t bits = __float_as_uint(v);
  const std::uint32_t rounded = bits + 0x7fffu + ((bits >> 16) & 1u);
  const std::uint32_t kept = v != v ? bits | 0x400000u : rounded;
  return {static_cast<std::uint16_t>(kept >> 16)};
}

// Calls f with a value of the type that `dtype` names.
template <class F>
void with_type(DType dtype, const F& f) {
  switch (dtype) {
    case DType::kFloat32:
      f(float{});
      break;
    case DType::kBFloat16:
      f(Bf16{});
      break;
    case DType::kFloat16:
      f(Half{});
      break;
  }
}

}  // namespace fettle::kernels::gpu
