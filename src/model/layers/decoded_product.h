// SPDX-License-Identifier: Apache-2.0
// Products in a pass that may decode.
#pragma once

#include <ATen/ATen.h>

namespace fettle::model {

struct ProductKind {
  // Each row is a token that is decoded: where there is an op for it
  // (kernels/row_product.h), its bits don't depend on the rows beside it.
  bool decodes = false;
};

// x [n, K] w [K, M].
at::Tensor product(
    const at::Tensor& x, const at::Tensor& w, const ProductKind& kind);

// The same into y [n, M].
void product_into(
    at::Tensor& y,
    const at::Tensor& x,
    const at::Tensor& w,
    const ProductKind& kind);

}  // namespace fettle::model
