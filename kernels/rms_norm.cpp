// SPDX-License-Identifier: Apache-2.0
#include "kernels/rms_norm.h"

#include <algorithm>

#include "kernels/dispatch.h"

namespace fettle::kernels {
namespace {

// Depends on the number of rows only, so that dw has the same bits on any
// number of threads.
std::int64_t blocks_of(std::int64_t rows) {
  return std::clamp<std::int64_t>(rows / 32, 1, 128);
}

}  // namespace

RmsNormResult rms_norm(
    const at::Tensor& x,
    const at::Tensor& w,
    double eps,
    const RmsNormOptions& options) {
  FETTLE_ASSERT(x.numel() == 0 || has_rows(x));
  FETTLE_ASSERT(matches(w, {x.size(-1)}, x));
  const std::int64_t rows = x.numel() / x.size(-1);
  RmsNormResult result{
      at::empty(x.sizes(), x.options()),
      at::empty({rows}, x.options().dtype(at::kFloat))};
  if (rows == 0) return result;
  const RmsNormArgs args{
      .dtype = dtype_of(x),
      .rows = rows,
      .cols = x.size(-1),
      .x = rows_of(x),
      .w = w.data_ptr(),
      .y = result.y.data_ptr(),
      .rstd = result.rstd.data_ptr<float>(),
      .eps = static_cast<float>(eps),
      .offset = static_cast<float>(options.offset)};
  dispatch(x.device(), {"rms_norm", cpu::rms_norm, &Launchers::rms_norm}, args);
  return result;
}

RmsNormGradients rms_norm_backward(
    const at::Tensor& dy,
    const at::Tensor& x,
    const at::Tensor& w,
    const at::Tensor& rstd,
    const RmsNormBackwardOptions& options) {
  const std::int64_t cols = x.size(-1);
  const std::int64_t rows = x.numel() / cols;
  FETTLE_ASSERT(rows == 0 || (has_rows(x) && has_rows(dy)));
  FETTLE_ASSERT(dy.sizes() == x.sizes() && dy.dtype() == x.dtype());
  FETTLE_ASSERT(dy.device() == x.device() && matches(w, {cols}, x));
  FETTLE_ASSERT(matches_as(rstd, {rows}, x, at::kFloat));
  const auto fp32 = x.options().dtype(at::kFloat);
  RmsNormGradients result{at::empty(x.sizes(), x.options()), {}};
  if (options.weight_gradient) result.dw = at::zeros({cols}, fp32);
  if (rows == 0) return result;
  RmsNormBackwardArgs args{
      .dtype = dtype_of(x),
      .rows = rows,
      .cols = cols,
      .dy = rows_of(dy),
      .x = rows_of(x),
      .w = w.data_ptr(),
      .rstd = rstd.data_ptr<float>(),
      .dx = result.dx.data_ptr(),
      .dw = nullptr,
      .partial = nullptr,
      .blocks = blocks_of(rows),
      .offset = static_cast<float>(options.offset)};
  at::Tensor partial;
  if (options.weight_gradient) {
    partial = at::empty({args.blocks, cols}, fp32);
    args.partial = partial.data_ptr<float>();
    args.dw = result.dw.data_ptr<float>();
  }
  dispatch(
      x.device(),
      {"rms_norm_backward",
       cpu::rms_norm_backward,
       &Launchers::rms_norm_backward},
      args);
  return result;
}

}  // namespace fettle::kernels
