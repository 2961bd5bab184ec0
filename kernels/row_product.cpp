// SPDX-License-Identifier: Apache-2.0
#include "kernels/row_product.h"

#include "core/error.h"
#include "kernels/cpu/decoding.h"
#include "kernels/dispatch.h"

namespace fettle::kernels {
namespace {

bool is_plain(const at::Tensor& t, bool half = false) {
  return t.dim() == 2 && t.is_cpu() &&
         (t.scalar_type() == at::kFloat ||
          (half && t.scalar_type() == at::kBFloat16));
}

}  // namespace

bool has_row_product(const at::Tensor& x, const at::Tensor& w) {
  return is_plain(x) && is_plain(w, true) && x.stride(1) == 1 &&
         (w.stride(0) == 1 || w.stride(1) == 1);
}

void row_product_into(
    const at::Tensor& y, const at::Tensor& x, const at::Tensor& w) {
  FETTLE_ASSERT(has_row_product(x, w) && is_plain(y));
  FETTLE_ASSERT(x.size(1) == w.size(0) && y.size(0) == x.size(0));
  FETTLE_ASSERT(y.size(1) == w.size(1) && y.stride(1) == 1);
  const bool turned = w.stride(0) == 1;
  cpu::row_product(
      {.rows = x.size(0),
       .inner = x.size(1),
       .columns = w.size(1),
       .x = x.const_data_ptr<float>(),
       .x_stride = x.stride(0),
       .w = w.const_data_ptr(),
       .w_stride = turned ? w.stride(1) : w.stride(0),
       .w_type = dtype_of(w),
       .turned = turned,
       .y = y.data_ptr<float>(),
       .y_stride = y.stride(0)});
}

at::Tensor row_product(const at::Tensor& x, const at::Tensor& w) {
  at::Tensor y = at::empty({x.size(0), w.size(1)}, x.options());
  row_product_into(y, x, w);
  return y;
}

}  // namespace fettle::kernels
