// SPDX-License-Identifier: Apache-2.0
// The only header that names both cuda* and hip*. Gives the kernels their
// stream, error and shuffle primitives, and types of values with conversions.
#pragma once

#if defined(__HIPCC__) || defined(__HIP__)
#include <hip/hip_fp16.h>
#include <hip/hip_runtime.h>
#else
#include <cuda_fp16.h>
#include <cuda_runtime.h>
#endif

#include <cstdint>

#include "kernels/args.h"

namespace fettle::kernels::gpu {

#if defined(__HIPCC__) || defined(__HIP__)
using Stream = hipStream_t;

inline const char* launch_result() {
  const hipError_t error = hipGetLastError();
  return error == hipSuccess ? nullptr : hipGetErrorString(error);
}

inline const char* runtime_device_count(int* count) {
  const hipError_t error = hipGetDeviceCount(count);
  if (error == hipSuccess) return nullptr;
  (void)hipGetLastError();  // an absent card is no error of a later launch
  *count = 0;
  return hipGetErrorString(error);
}

__device__ inline float shuffle_xor(float v, int mask) {
  return __shfl_xor(v, mask);
}
#else
using Stream = cudaStream_t;

inline const char* launch_result() {
  const cudaError_t error = cudaGetLastError();
  return error == cudaSuccess ? nullptr : cudaGetErrorString(error);
}

inline const char* runtime_device_count(int* count) {
  const cudaError_t error = cudaGetDeviceCount(count);
  if (error == cudaSuccess) return nullptr;
  (void)cudaGetLastError();  // an absent card is no error of a later launch
  *count = 0;
  return cudaGetErrorString(error);
}

__device__ inline float shuffle_xor(float v, int mask) {
  return __shfl_xor_sync(0xffffffffu, v, mask);
}
#endif

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
