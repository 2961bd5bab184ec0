// SPDX-License-Identifier: Apache-2.0
// The codes of a packed matrix in the open, and changes to them that leave
// every value as it is: a value is (code - zero) x scale.
#pragma once

#include <ATen/ATen.h>

#include <cstdint>

#include "kernels/packed_matrix.h"

namespace fettle::exporter {

struct CodeMatrix {
  std::int64_t bits = 0;   // codes and zeros are below 2^bits
  std::int64_t group = 0;  // neighbours in a row that share scale and zero
  at::Tensor codes = {};   // uint8 [rows, cols]
  at::Tensor scales = {};  // float32 [rows, groups], values that bfloat16 holds
  at::Tensor zeros = {};   // uint8 [rows, groups]

  std::int64_t rows() const { return codes.size(0); }
  std::int64_t cols() const { return codes.size(1); }
  std::int64_t groups() const { return scales.size(1); }
};

// Trits are codes of 2 bits with zero 1.
CodeMatrix open_codes(const kernels::PackedMatrix& matrix);

// float32 [rows, cols].
at::Tensor values_of(const CodeMatrix& matrix);

// By how much values change when scales are of `type`: the most, relative to
// the largest value. 0: not at all.
double scale_error(const CodeMatrix& matrix, at::ScalarType type);

// With zeros of 2^(bits - 1) and codes of `bits` bits, whose range holds every
// code - zero (InternalError otherwise).
CodeMatrix centered(const CodeMatrix& matrix, std::int64_t bits);

// With groups of `group`, which divides the matrix's own, or any where a row is
// one group.
CodeMatrix regrouped(const CodeMatrix& matrix, std::int64_t group);

// With weights of value zero added behind each row and after the last.
CodeMatrix padded(
    const CodeMatrix& matrix, std::int64_t rows, std::int64_t cols);

// Rows in another order.
CodeMatrix with_rows(const CodeMatrix& matrix, const at::Tensor& order);

// Columns in another order, in which runs of `run` stay neighbours. Groups
// become as short as both.
CodeMatrix with_columns(
    const CodeMatrix& matrix, const at::Tensor& order, std::int64_t run);

}  // namespace fettle::exporter
