// SPDX-License-Identifier: Apache-2.0
#include "trim/packed_slices.h"

#include <algorithm>

#include "kernels/gptq.h"

namespace fettle::trim {
namespace {

using kernels::PackedKind;
using kernels::PackedMatrix;

// Groups of a narrower matrix are no wider than its rows.
std::int64_t group_of(const model::PackedHeader& header, std::int64_t cols) {
  return std::min(header.group, std::max<std::int64_t>(cols, 1));
}

// Trits as codes: what they unpack to under scales of one.
at::Tensor trit_codes(PackedMatrix matrix) {
  matrix.scales = at::ones_like(matrix.scales);
  at::Tensor trits = at::empty({matrix.rows, matrix.cols}, at::kFloat);
  kernels::unpack_rows(matrix, 0, trits);
  return (trits + 1).to(at::kByte);
}

}  // namespace

model::PackedHeader resized(
    const model::PackedHeader& header, std::int64_t rows, std::int64_t cols) {
  const bool ints = header.kind == PackedKind::kInt;
  const PackedKind kind = ints ? PackedKind::kInt : PackedKind::kTernary;
  return {
      .kind = kind,
      .bits = header.bits,
      .rows = rows,
      .cols = cols,
      .group = group_of(header, cols),
      .zeros = header.zeros,
      .codes_bytes = rows * kernels::packed_row_bytes(kind, header.bits, cols)};
}

PackedMatrix select_rows(const PackedMatrix& matrix, const at::Tensor& index) {
  PackedMatrix plain = matrix;
  if (matrix.kind != PackedKind::kInt && matrix.kind != PackedKind::kTernary) {
    plain.kind = PackedKind::kTernary;
    plain.codes = kernels::pack_codes(plain.kind, 0, trit_codes(matrix));
    plain.row_begin = at::Tensor();
    plain.table = at::Tensor();
  }
  plain.codes = plain.codes.view({matrix.rows, -1}).index_select(0, index);
  plain.codes = plain.codes.flatten();
  plain.scales = plain.scales.index_select(0, index);
  if (plain.zeros.defined()) plain.zeros = plain.zeros.index_select(0, index);
  plain.rows = index.size(0);
  return plain;
}

PackedMatrix rounded_anew(
    const at::Tensor& values, const model::PackedHeader& header) {
  const bool ints = header.kind == PackedKind::kInt;
  const kernels::QuantGrid grid{
      .kind = ints ? PackedKind::kInt : PackedKind::kTernary,
      .bits = header.bits,
      .symmetric = !header.zeros,
      .group = group_of(header, values.size(1))};
  return kernels::pack(
      kernels::quantize({values.to(at::kFloat).clone(), {}}, grid), grid);
}

}  // namespace fettle::trim
