// SPDX-License-Identifier: Apache-2.0
// Seeded packed matrices, and their codes and weights taken from the bytes one
// bit at a time, as packed_matrix.h defines them.
#pragma once

#include <string>
#include <vector>

#include "kernels/packed_matrix.h"

namespace fettle::kernels::test {

struct PackedCase {
  PackedKind kind = PackedKind::kInt;
  std::int64_t bits = 0;
  std::int64_t rows = 0;
  std::int64_t cols = 0;
  std::int64_t group = 0;
  bool zeros = false;
};

// Bytes below `limit`.
at::Tensor seeded_bytes(
    at::IntArrayRef sizes, std::int64_t limit, std::int64_t seed);

// Every bit of an int matrix is random, also those behind the end of a row.
PackedMatrix packed_case(const PackedCase& what);

// All kinds, with and without zeros, over sizes and groups.
std::vector<PackedMatrix> packed_cases();

std::string describe(const PackedMatrix& matrix);

// uint8 [rows, cols] and float64 [rows, cols].
at::Tensor plain_codes(const PackedMatrix& matrix);
at::Tensor plain_weights(const PackedMatrix& matrix);

// x Wᵀ by packed_products, into y full of NaN; and in float64.
at::Tensor packed_product(const PackedMatrix& matrix, const at::Tensor& x);
at::Tensor true_product(const PackedMatrix& matrix, const at::Tensor& x);

}  // namespace fettle::kernels::test
