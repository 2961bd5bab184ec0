// SPDX-License-Identifier: Apache-2.0
// What every op's dispatch file shares: turning tensors into arguments, and
// choosing between the CPU and the GPU code by where the tensors are.
#pragma once

#include <ATen/ATen.h>

#include "core/error.h"
#include "kernels/args.h"
#include "kernels/cpu/cpu.h"
#include "kernels/device_backend.h"

namespace fettle::kernels {

// float32, bfloat16, or on a GPU float16. Anything else is an InternalError.
DType dtype_of(const at::Tensor& tensor);

// Whether `t` is contiguous, has `sizes`, and shares device and dtype with
// `like`.
bool matches(
    const at::Tensor& t, at::IntArrayRef sizes, const at::Tensor& like);

// Whether `t` is contiguous, has `sizes` and `dtype`, and the device of `like`.
bool matches_as(
    const at::Tensor& t,
    at::IntArrayRef sizes,
    const at::Tensor& like,
    at::ScalarType dtype);

// Whether `t` is [N, D] or [N, heads, D] with a contiguous last dimension.
bool has_rows(const at::Tensor& t);
Rows rows_of(const at::Tensor& t);

// Calls launcher(stream) with the current stream of `device`, the device made
// current. Throws UserError with what the launcher answers unless null.
void launch(
    at::Device device,
    const char* op,
    const std::function<const char*(void*)>& launcher);

// The code of an op on either side.
template <class Args>
struct Op {
  const char* name;
  void (*cpu)(const Args&);
  Launcher<Args> Launchers::*gpu;
};

// Runs an op on the CPU, or queues it on the device's current stream.
template <class Args>
void dispatch(at::Device device, const Op<Args>& op, const Args& args) {
  if (device.is_cpu()) {
    op.cpu(args);
  } else {
    launch(device, op.name, [&](void* stream) {
      return (gpu_launchers().*op.gpu)(args, stream);
    });
  }
}

}  // namespace fettle::kernels
