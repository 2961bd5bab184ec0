// SPDX-License-Identifier: Apache-2.0
#include "kernels/expert_rows.h"

#include <algorithm>

#include "kernels/dispatch.h"

namespace fettle::kernels {
namespace {

// `t` as int64, contiguous, with every value in [lowest, limit).
at::Tensor indices(
    const at::Tensor& t,
    const at::Tensor& like,
    std::int64_t lowest,
    std::int64_t limit) {
  FETTLE_ASSERT(t.scalar_type() == at::kLong || t.scalar_type() == at::kInt);
  FETTLE_ASSERT(t.device() == like.device());
  at::Tensor wide = t.to(at::kLong).contiguous();
  if (wide.is_cpu()) {
    const auto* first = wide.data_ptr<std::int64_t>();
    FETTLE_ASSERT(std::all_of(first, first + wide.numel(), [&](auto i) {
      return i >= lowest && i < limit;
    }));
  }
  return wide;
}

// Rows that no position names must be zero. Only the CPU can afford to look
// whether there are any.
at::Tensor empty_or_zero(const at::Tensor& rows, const at::Tensor& position) {
  const auto named = [&] {
    const auto* first = position.data_ptr<std::int64_t>();
    return std::count_if(
        first, first + position.numel(), [](auto i) { return i >= 0; });
  };
  if (rows.is_cpu() && named() == rows.size(0)) return at::empty_like(rows);
  return at::zeros_like(rows);
}

at::Tensor weighted_sum(
    const at::Tensor& rows, const at::Tensor& position, const float* weights) {
  FETTLE_ASSERT(rows.dim() == 2 && rows.is_contiguous());
  FETTLE_ASSERT(position.dim() == 2 && position.size(1) <= kMaxTopK);
  const at::Tensor wide = indices(position, rows, -1, rows.size(0));
  at::Tensor y = at::empty({position.size(0), rows.size(1)}, rows.options());
  if (y.numel() == 0) return y;
  const CombineArgs args{
      .dtype = dtype_of(rows),
      .tokens = position.size(0),
      .top_k = position.size(1),
      .cols = rows.size(1),
      .rows = rows.data_ptr(),
      .position = wide.data_ptr<std::int64_t>(),
      .weights = weights,
      .y = y.data_ptr()};
  dispatch(rows.device(), {"combine", cpu::combine, &Launchers::combine}, args);
  return y;
}

}  // namespace

at::Tensor gather_rows(const at::Tensor& x, const at::Tensor& index) {
  FETTLE_ASSERT(x.dim() == 2 && x.is_contiguous() && index.dim() == 1);
  const at::Tensor wide = indices(index, x, 0, x.size(0));
  at::Tensor out = at::empty({index.size(0), x.size(1)}, x.options());
  if (out.numel() == 0) return out;
  const GatherRowsArgs args{
      .rows = index.size(0),
      .row_bytes = x.size(1) * x.element_size(),
      .x = x.data_ptr(),
      .index = wide.data_ptr<std::int64_t>(),
      .out = out.data_ptr()};
  dispatch(
      x.device(),
      {"gather_rows", cpu::gather_rows, &Launchers::gather_rows},
      args);
  return out;
}

at::Tensor gather_rows_backward(
    const at::Tensor& d_rows, const at::Tensor& position) {
  return weighted_sum(d_rows, position, nullptr);
}

at::Tensor combine(
    const at::Tensor& rows,
    const at::Tensor& position,
    const at::Tensor& weights) {
  FETTLE_ASSERT(matches_as(weights, position.sizes(), rows, at::kFloat));
  return weighted_sum(rows, position, weights.data_ptr<float>());
}

CombineGradients combine_backward(
    const at::Tensor& dy,
    const at::Tensor& rows,
    const at::Tensor& position,
    const at::Tensor& weights) {
  FETTLE_ASSERT(rows.dim() == 2 && rows.is_contiguous());
  FETTLE_ASSERT(position.dim() == 2);
  FETTLE_ASSERT(matches_as(weights, position.sizes(), rows, at::kFloat));
  FETTLE_ASSERT(matches(dy, {position.size(0), rows.size(1)}, rows));
  const at::Tensor wide = indices(position, rows, -1, rows.size(0));
  CombineGradients result{
      empty_or_zero(rows, wide),
      at::zeros(position.sizes(), weights.options())};
  if (dy.numel() == 0) return result;
  const CombineBackwardArgs args{
      .dtype = dtype_of(rows),
      .tokens = position.size(0),
      .top_k = position.size(1),
      .cols = rows.size(1),
      .dy = dy.data_ptr(),
      .rows = rows.data_ptr(),
      .position = wide.data_ptr<std::int64_t>(),
      .weights = weights.data_ptr<float>(),
      .d_rows = result.d_rows.data_ptr(),
      .d_weights = result.d_weights.data_ptr<float>()};
  dispatch(
      rows.device(),
      {"combine_backward", cpu::combine_backward, &Launchers::combine_backward},
      args);
  return result;
}

}  // namespace fettle::kernels
