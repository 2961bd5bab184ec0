// SPDX-License-Identifier: Apache-2.0
#include "kernels/packed_matrix.h"

#include <vector>

#include "kernels/cpu/packed.h"
#include "kernels/dispatch.h"
#include "kernels/trit_code.h"

namespace fettle::kernels {
namespace {

// Keeps sums of sizes far from what 64 bits hold.
constexpr std::int64_t kMostOfASide = std::int64_t{1} << 48;

bool is_packed_coded(PackedKind kind) {
  return kind == PackedKind::kTernaryWords ||
         kind == PackedKind::kTernaryHuffman;
}

bool has_packed_bits(PackedKind kind, std::int64_t bits) {
  if (kind != PackedKind::kInt) return bits == 0;
  return bits == 2 || bits == 3 || bits == 4 || bits == 8;
}

// Whether codes are `rows` rows of `row_bytes`; no product that may overflow.
bool has_rows_of(
    const at::Tensor& codes, std::int64_t rows, std::int64_t row_bytes) {
  if (rows == 0 || row_bytes == 0) return codes.numel() == 0;
  return codes.numel() % rows == 0 && codes.numel() / rows == row_bytes;
}

PackedProductArgs product_args(const PackedProduct& p) {
  FETTLE_ASSERT(p.matrix != nullptr && p.x.defined() && p.x.dim() == 2);
  const std::int64_t n = p.x.size(0);
  FETTLE_ASSERT(is_matrix(p.x, n, p.matrix->cols));
  FETTLE_ASSERT(is_matrix(p.y, n, p.matrix->rows));
  FETTLE_ASSERT(p.x.device() == p.matrix->codes.device());
  FETTLE_ASSERT(p.y.device() == p.x.device());
  return {
      .matrix = packed_args(*p.matrix),
      .n = n,
      .x = p.x.const_data_ptr(),
      .y = p.y.data_ptr(),
      .x_stride = p.x.stride(0),
      .y_stride = p.y.stride(0)};
}

}  // namespace

bool is_matrix(const at::Tensor& t, std::int64_t rows, std::int64_t cols) {
  return t.defined() && t.sizes() == at::IntArrayRef({rows, cols}) &&
         (t.stride(1) == 1 || cols <= 1);
}

PackedArgs packed_args(const PackedMatrix& m) {
  FETTLE_ASSERT(m.defined());
  const bool coded = is_packed_coded(m.kind), zeros = m.zeros.defined();
  return {
      .kind = m.kind,
      .bits = static_cast<std::int32_t>(m.bits),
      .rows = m.rows,
      .cols = m.cols,
      .group = m.group,
      .groups = m.groups(),
      .codes = m.codes.const_data_ptr<std::uint8_t>(),
      .codes_bytes = m.codes.numel(),
      .row_bytes = coded ? 0 : packed_row_bytes(m.kind, m.bits, m.cols),
      .scales = static_cast<const std::uint16_t*>(m.scales.const_data_ptr()),
      .zeros = zeros ? m.zeros.const_data_ptr<std::uint8_t>() : nullptr,
      .row_begin = coded ? m.row_begin.const_data_ptr<std::int64_t>() : nullptr,
      .table = coded ? m.table.const_data_ptr<std::uint8_t>() : nullptr,
      .table_bytes = coded ? m.table.numel() : 0};
}

std::int64_t PackedMatrix::bytes() const {
  std::int64_t sum = 0;
  for (const at::Tensor& t : {codes, scales, zeros, row_begin, table}) {
    if (t.defined()) sum += static_cast<std::int64_t>(t.nbytes());
  }
  return sum;
}

std::int64_t packed_row_bytes(
    PackedKind kind, std::int64_t bits, std::int64_t cols) {
  FETTLE_ASSERT(!is_packed_coded(kind) && has_packed_bits(kind, bits));
  FETTLE_ASSERT(cols >= 0 && cols < kMostOfASide);
  return kind == PackedKind::kInt ? (cols + 7) / 8 * bits : (cols + 4) / 5;
}

void check_packed(const PackedMatrix& m) {
  FETTLE_ASSERT(has_packed_bits(m.kind, m.bits));
  FETTLE_ASSERT(m.rows >= 0 && m.rows < kMostOfASide);
  FETTLE_ASSERT(m.cols >= 0 && m.cols < kMostOfASide);
  FETTLE_ASSERT(m.group >= (m.cols > 0 ? 1 : 0) && m.group < kMostOfASide);
  FETTLE_ASSERT(m.defined() && m.codes.dim() == 1);
  FETTLE_ASSERT(matches_as(m.codes, m.codes.sizes(), m.codes, at::kByte));
  const std::int64_t sizes[] = {m.rows, m.groups()};
  FETTLE_ASSERT(matches_as(m.scales, sizes, m.codes, at::kBFloat16));
  if (m.zeros.defined()) {
    FETTLE_ASSERT(m.kind == PackedKind::kInt);
    FETTLE_ASSERT(matches_as(m.zeros, sizes, m.codes, at::kByte));
  }
  switch (m.kind) {
    case PackedKind::kInt:
    case PackedKind::kTernary:
      FETTLE_ASSERT(!m.row_begin.defined() && !m.table.defined());
      FETTLE_ASSERT(has_rows_of(
          m.codes, m.rows, packed_row_bytes(m.kind, m.bits, m.cols)));
      return;
    case PackedKind::kTernaryWords:
    case PackedKind::kTernaryHuffman:
      check_trit_code(m);
  }
}

at::Tensor pack_codes(
    PackedKind kind, std::int64_t bits, const at::Tensor& codes) {
  FETTLE_ASSERT(codes.is_cpu() && codes.scalar_type() == at::kByte);
  FETTLE_ASSERT(codes.dim() == 2);
  const at::Tensor whole = codes.contiguous();
  const std::int64_t row_bytes = packed_row_bytes(kind, bits, codes.size(1));
  at::Tensor packed = at::empty({codes.size(0) * row_bytes}, codes.options());
  const PackCodesArgs args{
      .kind = kind,
      .bits = static_cast<std::int32_t>(bits),
      .rows = codes.size(0),
      .cols = codes.size(1),
      .row_bytes = row_bytes,
      .codes = whole.const_data_ptr<std::uint8_t>(),
      .packed = packed.mutable_data_ptr<std::uint8_t>()};
  const bool codes_fit = cpu::pack_codes(args);
  FETTLE_ASSERT(codes_fit);
  return packed;
}

void unpack_rows(
    const PackedMatrix& matrix, std::int64_t first, const at::Tensor& out) {
  FETTLE_ASSERT(out.defined() && out.dim() == 2);
  FETTLE_ASSERT(is_matrix(out, out.size(0), matrix.cols));
  FETTLE_ASSERT(first >= 0 && first <= matrix.rows - out.size(0));
  FETTLE_ASSERT(out.device() == matrix.codes.device());
  const UnpackRowsArgs args{
      .dtype = dtype_of(out),
      .matrix = packed_args(matrix),
      .first = first,
      .rows = out.size(0),
      .out = out.data_ptr(),
      .stride = out.stride(0)};
  if (out.numel() == 0) return;
  if (out.is_cpu()) {
    const bool sound = cpu::unpack_rows(args);
    if (!sound) check_trit_rows(matrix, first, args.rows);  // says which row
    FETTLE_ASSERT(sound);
  } else {
    launch(out.device(), "unpack_rows", [&](void* stream) {
      return gpu_launchers().unpack_rows(args, stream);
    });
  }
}

void packed_products(std::span<const PackedProduct> products) {
  if (products.empty()) return;
  const at::Tensor& like = products.front().x;
  std::vector<PackedProductArgs> all;
  for (const PackedProduct& p : products) {
    all.push_back(product_args(p));
    FETTLE_ASSERT(p.x.device() == like.device());
    FETTLE_ASSERT(p.x.scalar_type() == like.scalar_type());
    FETTLE_ASSERT(p.y.scalar_type() == like.scalar_type());
  }
  const PackedProductsArgs args{
      .dtype = dtype_of(like),
      .products = all.data(),
      .count = static_cast<std::int64_t>(all.size())};
  if (like.is_cpu()) {
    FETTLE_ASSERT(args.dtype == DType::kFloat32);
    const bool sound = cpu::packed_products(args);
    for (const PackedProduct& p : products) {
      if (sound || !is_packed_coded(p.matrix->kind)) continue;
      check_trit_rows(*p.matrix, 0, p.matrix->rows);
    }
    FETTLE_ASSERT(sound);
  } else {
    launch(like.device(), "packed_products", [&](void* stream) {
      return gpu_launchers().packed_products(args, stream);
    });
  }
}

}  // namespace fettle::kernels
