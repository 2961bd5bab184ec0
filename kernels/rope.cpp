// SPDX-License-Identifier: Apache-2.0
#include "kernels/rope.h"

#include "kernels/dispatch.h"

namespace fettle::kernels {
namespace {

struct Turn {
  RopeOptions options;
  float sign;
};

at::Tensor run(
    const at::Tensor& x,
    const at::Tensor& cos,
    const at::Tensor& sin,
    const Turn& turn) {
  FETTLE_ASSERT(x.dim() == 3 && (x.numel() == 0 || has_rows(x)));
  FETTLE_ASSERT(cos.dim() == 2 && sin.dim() == 2);
  const std::int64_t rotated = 2 * cos.size(1);
  const std::int64_t start = turn.options.start;
  FETTLE_ASSERT(matches_as(cos, {x.size(0), rotated / 2}, x, at::kFloat));
  FETTLE_ASSERT(matches_as(sin, cos.sizes(), x, at::kFloat));
  FETTLE_ASSERT(start >= 0 && start + rotated <= x.size(2));
  at::Tensor y = at::empty(x.sizes(), x.options());
  if (x.numel() == 0) return y;
  const RopeArgs args{
      .dtype = dtype_of(x),
      .pairing = turn.options.pairing,
      .tokens = x.size(0),
      .head_size = x.size(2),
      .start = start,
      .rotated = rotated,
      .x = rows_of(x),
      .cos = cos.data_ptr<float>(),
      .sin = sin.data_ptr<float>(),
      .y = y.data_ptr(),
      .sign = turn.sign};
  dispatch(x.device(), {"rope", cpu::rope, &Launchers::rope}, args);
  return y;
}

}  // namespace

at::Tensor rope(
    const at::Tensor& x,
    const at::Tensor& cos,
    const at::Tensor& sin,
    const RopeOptions& options) {
  return run(x, cos, sin, {options, 1.0f});
}

at::Tensor rope_backward(
    const at::Tensor& dy,
    const at::Tensor& cos,
    const at::Tensor& sin,
    const RopeOptions& options) {
  return run(dy, cos, sin, {options, -1.0f});
}

}  // namespace fettle::kernels
