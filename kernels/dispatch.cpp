// SPDX-License-Identifier: Apache-2.0
#include "kernels/dispatch.h"

#include <c10/core/impl/VirtualGuardImpl.h>

#include "kernels/no_gpu/stubs.h"

namespace fettle::kernels {

DType dtype_of(const at::Tensor& tensor) {
  if (tensor.scalar_type() == at::kFloat) return DType::kFloat32;
  if (tensor.scalar_type() == at::kBFloat16) return DType::kBFloat16;
  FETTLE_ASSERT(tensor.scalar_type() == at::kHalf && !tensor.is_cpu());
  return DType::kFloat16;
}

bool matches_as(
    const at::Tensor& t,
    at::IntArrayRef sizes,
    const at::Tensor& like,
    at::ScalarType dtype) {
  return t.defined() && t.sizes() == sizes && t.is_contiguous() &&
         t.device() == like.device() && t.scalar_type() == dtype;
}

bool matches(
    const at::Tensor& t, at::IntArrayRef sizes, const at::Tensor& like) {
  return matches_as(t, sizes, like, like.scalar_type());
}

bool has_rows(const at::Tensor& t) {
  const auto dims = t.dim();
  return (dims == 2 || dims == 3) && t.size(-1) > 0 && t.size(dims - 2) > 0 &&
         (t.stride(-1) == 1 || t.size(-1) == 1);
}

Rows rows_of(const at::Tensor& t) {
  const bool heads = t.dim() == 3;
  return {
      .data = t.data_ptr(),
      .heads = heads ? t.size(1) : 1,
      .token_stride = t.stride(0),
      .head_stride = heads ? t.stride(1) : 0};
}

void launch(
    at::Device device,
    const char* op,
    const std::function<const char*(void*)>& launcher) {
  void* stream = nullptr;
  const char* refusal = nullptr;
  if (&gpu_launchers() == &no_gpu_launchers()) {
    refusal = launcher(stream);
  } else {
    const c10::impl::VirtualGuardImpl guard(device.type());
    const at::Device before = guard.exchangeDevice(device);
    stream = guard.getStreamNativeHandle(guard.getStream(device));
    refusal = launcher(stream);
    guard.uncheckedSetDevice(before);
  }
  if (refusal != nullptr) throw UserError("kernels", op, refusal);
}

}  // namespace fettle::kernels
