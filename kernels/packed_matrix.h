// SPDX-License-Identifier: Apache-2.0
// A matrix of few bits a weight, and the products with it. A weight is
// (code - zero) x scale, one scale for `group` neighbouring weights of a row.
#pragma once

#include <ATen/ATen.h>

#include <cstdint>
#include <span>

#include "kernels/packed_args.h"

namespace fettle::kernels {

struct PackedMatrix {
  PackedKind kind = PackedKind::kInt;
  std::int64_t bits = 0;  // of kInt
  std::int64_t rows = 0;
  std::int64_t cols = 0;
  std::int64_t group = 0;  // the last group of a row may be short
  at::Tensor codes = {};   // uint8 [bytes]
  at::Tensor scales = {};  // bfloat16 [rows, groups]
  // uint8 [rows, groups]; undefined: 2^(bits - 1) for kInt. Ternary has none.
  at::Tensor zeros = {};
  // Coded kinds only: int64 [rows + 1], where a row's bytes begin in `codes`;
  // and the code's table, uint8.
  at::Tensor row_begin = {};
  at::Tensor table = {};

  std::int64_t groups() const {
    return group == 0 ? 0 : (cols + group - 1) / group;
  }
  bool defined() const { return codes.defined(); }
  std::int64_t bytes() const;  // of all its tensors
};

// Bytes of a row of `codes` of the kinds whose rows have one length.
std::int64_t packed_row_bytes(
    PackedKind kind, std::int64_t bits, std::int64_t cols);

// Throws InternalError unless the tensors have the types, shapes and sizes that
// the kind asks for. Unpacking never reads or writes out of bounds after this,
// whatever the bytes are.
void check_packed(const PackedMatrix& matrix);

// Packs codes [rows, cols] uint8 (of kTernary: trit + 1) in `codes`' form.
// On the CPU.
at::Tensor pack_codes(
    PackedKind kind, std::int64_t bits, const at::Tensor& codes);

// Rows [first, first + out.size(0)) into `out` [n, cols], float32 or bfloat16
// (float16 too on a GPU), whose rows may be strided. Throws UserError "…" when
// a coded row is damaged.
void unpack_rows(
    const PackedMatrix& matrix, std::int64_t first, const at::Tensor& out);

// Whether t is [rows, cols] with rows that lie in one piece.
bool is_matrix(const at::Tensor& t, std::int64_t rows, std::int64_t cols);
// What the CPU and GPU code takes of a matrix that is defined.
PackedArgs packed_args(const PackedMatrix& matrix);

// y [n, rows] = x [n, cols] Wᵀ of one matrix, for few rows of x: each weight is
// unpacked on its way into the sum and used for all rows.
struct PackedProduct {
  const PackedMatrix* matrix;
  at::Tensor x;  // [n, cols]
  at::Tensor y;  // [n, rows], written
};

// All products at once: on the CPU one parallel loop over the rows of all.
// x and y are float32 on the CPU; float32, bfloat16 or float16 on a GPU. Sums
// are float32; on a GPU, |x| of 2^64 and more counts as infinite.
void packed_products(std::span<const PackedProduct> products);

}  // namespace fettle::kernels
