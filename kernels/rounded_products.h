// SPDX-License-Identifier: Apache-2.0
// Products of packed matrices with x rounded to int8, on the CPU: each row of x
// has a scale for every group of columns, or for 256 of them at most, its
// largest |x| over 127. Sums of codes are integers, so that a row's values have
// their bits whatever is beside it, on any processor whose sums of products
// are rounded once.
#pragma once

#include <ATen/ATen.h>

#include <span>

#include "kernels/packed_matrix.h"

namespace fettle::kernels {

// Whether there is such a product: groups of 16 n columns or of whole rows,
// float32 on the CPU.
bool has_rounded_product(const PackedMatrix& matrix, const at::Tensor& x);

// All products at once, of any numbers of rows. A block of x with a NaN or an
// infinity gives NaN. Throws UserError where a coded row is damaged.
void rounded_products(std::span<const PackedProduct> products);

}  // namespace fettle::kernels
