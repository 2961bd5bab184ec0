// SPDX-License-Identifier: Apache-2.0
#include "model/layers/decoded_product.h"

#include "kernels/row_product.h"

namespace fettle::model {

at::Tensor product(
    const at::Tensor& x, const at::Tensor& w, const ProductKind& kind) {
  return kind.decodes && kernels::has_row_product(x, w)
             ? kernels::row_product(x, w)
             : at::mm(x, w);
}

void product_into(
    at::Tensor& y,
    const at::Tensor& x,
    const at::Tensor& w,
    const ProductKind& kind) {
  if (kind.decodes && kernels::has_row_product(x, w)) {
    kernels::row_product_into(y, x, w);
  } else {
    at::mm_out(y, x, w);
  }
}

}  // namespace fettle::model
