// SPDX-License-Identifier: Apache-2.0
// The only header that names both cuda* and hip*: how kernels are launched, and
// what they use of a vendor's language. tests/emulated_gpu has another one.
#pragma once

#if defined(__HIPCC__) || defined(__HIP__)
#include <hip/hip_fp16.h>
#include <hip/hip_runtime.h>
#else
#include <cuda_fp16.h>
#include <cuda_runtime.h>
#endif

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

inline int runtime_compute_capability(int) { return 0; }

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

inline int runtime_compute_capability(int device) {
  int major = 0, minor = 0;
  if (cudaDeviceGetAttribute(
          &major, cudaDevAttrComputeCapabilityMajor, device) != cudaSuccess ||
      cudaDeviceGetAttribute(
          &minor, cudaDevAttrComputeCapabilityMinor, device) != cudaSuccess) {
    (void)cudaGetLastError();
    return 0;
  }
  return 10 * major + minor;
}

__device__ inline float shuffle_xor(float v, int mask) {
  return __shfl_xor_sync(0xffffffffu, v, mask);
}
#endif

// Queues kernel(args...) on `blocks` blocks of `threads` threads.
template <class... Parameters, class... Args>
void launch(
    void (*kernel)(Parameters...),
    dim3 blocks,
    int threads,
    Stream stream,
    const Args&... args) {
  kernel<<<blocks, static_cast<unsigned>(threads), 0, stream>>>(args...);
}

}  // namespace fettle::kernels::gpu
