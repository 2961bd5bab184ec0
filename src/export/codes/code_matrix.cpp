// SPDX-License-Identifier: Apache-2.0
#include "export/codes/code_matrix.h"

#include <algorithm>
#include <numeric>

#include "core/error.h"
#include "export/value_check.h"

namespace fettle::exporter {
namespace {

using kernels::PackedKind;
using kernels::PackedMatrix;

// Of weights that are zero whatever it is.
constexpr double kAnyScale = 1.0 / 256;
// Unpacked to fp32 on the way, so that large matrices take little beside codes.
constexpr std::int64_t kValuesAtOnce = 1 << 22;

// The matrix with scale 1 and, for codes, zero 0: its values are the codes.
at::Tensor bare_codes(const PackedMatrix& m) {
  const bool ints = m.kind == PackedKind::kInt;
  PackedMatrix bare = m;
  bare.scales = at::ones_like(m.scales);
  if (ints) bare.zeros = at::zeros(m.scales.sizes(), at::kByte);
  at::Tensor codes = at::empty({m.rows, m.cols}, at::kByte);
  const std::int64_t at_once = std::max<std::int64_t>(
      kValuesAtOnce / std::max<std::int64_t>(m.cols, 1), 1);
  for (std::int64_t r = 0; r < m.rows; r += at_once) {
    const std::int64_t rows = std::min(at_once, m.rows - r);
    at::Tensor values = at::empty({rows, m.cols}, at::kFloat);
    kernels::unpack_rows(bare, r, values);
    codes.narrow(0, r, rows).copy_(ints ? values : values.add_(1));
  }
  return codes;
}

// [rows, groups] by column.
at::Tensor spread(const CodeMatrix& m, const at::Tensor& of_groups) {
  const at::Tensor group_of =
      at::arange(m.cols(), at::kLong).floor_divide(m.group);
  return of_groups.index_select(1, group_of);
}

at::Tensor grown(
    const at::Tensor& t, std::int64_t rows, std::int64_t cols, double fill) {
  at::Tensor result = at::full({rows, cols}, fill, t.options());
  result.narrow(0, 0, t.size(0)).narrow(1, 0, t.size(1)).copy_(t);
  return result;
}

}  // namespace

CodeMatrix open_codes(const PackedMatrix& m) {
  const bool ints = m.kind == PackedKind::kInt;
  const std::int64_t bits = ints ? m.bits : 2;
  const std::int64_t middle = ints ? std::int64_t{1} << (bits - 1) : 1;
  return {
      .bits = bits,
      .group = std::max<std::int64_t>(m.group, 1),
      .codes = bare_codes(m),
      .scales = m.scales.to(at::kFloat),
      .zeros =
          m.zeros.defined()
              ? m.zeros
              : at::full(
                    m.scales.sizes(), middle, at::TensorOptions(at::kByte))};
}

at::Tensor values_of(const CodeMatrix& m) {
  return (m.codes.to(at::kFloat) - spread(m, m.zeros).to(at::kFloat)) *
         spread(m, m.scales);
}

double scale_error(const CodeMatrix& m, at::ScalarType type) {
  CodeMatrix other = m;
  other.scales = m.scales.to(type).to(at::kFloat);
  if (other.scales.equal(m.scales)) return 0;
  return relative_error(values_of(other), values_of(m));
}

CodeMatrix centered(const CodeMatrix& m, std::int64_t bits) {
  const std::int64_t middle = std::int64_t{1} << (bits - 1);
  const at::Tensor codes =
      m.codes.to(at::kShort) - spread(m, m.zeros).to(at::kShort) + middle;
  if (codes.numel() > 0) {
    FETTLE_ASSERT(codes.min().item<std::int64_t>() >= 0);
    FETTLE_ASSERT(codes.max().item<std::int64_t>() < 2 * middle);
  }
  CodeMatrix result = m;
  result.bits = bits;
  result.codes = codes.to(at::kByte);
  result.zeros = at::full_like(m.zeros, middle);
  return result;
}

CodeMatrix regrouped(const CodeMatrix& m, std::int64_t group) {
  if (group == m.group) return m;
  FETTLE_ASSERT(group > 0 && (m.groups() <= 1 || m.group % group == 0));
  const std::int64_t groups = (m.cols() + group - 1) / group;
  const at::Tensor from =
      m.groups() <= 1
          ? at::zeros({groups}, at::kLong)
          : (at::arange(groups, at::kLong) * group).floor_divide(m.group);
  CodeMatrix result = m;
  result.group = group;
  result.scales = m.scales.index_select(1, from);
  result.zeros = m.zeros.index_select(1, from);
  return result;
}

CodeMatrix padded(const CodeMatrix& m, std::int64_t rows, std::int64_t cols) {
  FETTLE_ASSERT(rows >= m.rows() && cols >= m.cols());
  if (rows == m.rows() && cols == m.cols()) return m;
  const std::int64_t middle = std::int64_t{1} << (m.bits - 1);
  CodeMatrix result = m;
  if (m.groups() <= 1) result.group = std::max<std::int64_t>(cols, 1);
  const std::int64_t groups = (cols + result.group - 1) / result.group;
  result.scales = grown(m.scales, rows, groups, kAnyScale);
  result.zeros = grown(m.zeros, rows, groups, static_cast<double>(middle));
  result.codes = at::zeros({rows, cols}, at::kByte);
  result.codes = spread(result, result.zeros);
  result.codes.narrow(0, 0, m.rows()).narrow(1, 0, m.cols()).copy_(m.codes);
  return result;
}

CodeMatrix with_rows(const CodeMatrix& m, const at::Tensor& order) {
  CodeMatrix result = m;
  result.codes = m.codes.index_select(0, order);
  result.scales = m.scales.index_select(0, order);
  result.zeros = m.zeros.index_select(0, order);
  return result;
}

CodeMatrix with_columns(
    const CodeMatrix& m, const at::Tensor& order, std::int64_t run) {
  CodeMatrix result =
      m.groups() <= 1 ? m : regrouped(m, std::gcd(m.group, run));
  result.codes = m.codes.index_select(1, order);
  if (m.groups() <= 1) return result;
  const at::Tensor groups =
      order.slice(0, 0, order.size(0), result.group).floor_divide(result.group);
  result.scales = result.scales.index_select(1, groups);
  result.zeros = result.zeros.index_select(1, groups);
  return result;
}

}  // namespace fettle::exporter
