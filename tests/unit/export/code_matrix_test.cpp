// SPDX-License-Identifier: Apache-2.0
#include "export/codes/code_matrix.h"

#include <catch2/catch.hpp>

#include "core/error.h"
#include "kernels/gptq.h"
#include "kernels/trit_code.h"

namespace fettle::exporter {
namespace {

using kernels::PackedKind;

at::Tensor bytes_of(std::initializer_list<std::int64_t> values) {
  return at::tensor(std::vector<std::int64_t>(values), at::kLong).to(at::kByte);
}

// Two rows of six codes in groups of four, the last of two.
CodeMatrix small(bool zeros) {
  CodeMatrix m;
  m.bits = 4;
  m.group = 4;
  m.codes = bytes_of({0, 5, 15, 8, 3, 7, 1, 2, 9, 8, 8, 6}).view({2, 6});
  m.scales = at::tensor({0.5F, 2.0F, 1.0F, 0.25F}).view({2, 2});
  m.zeros = zeros ? bytes_of({0, 3, 2, 15}).view({2, 2})
                  : at::full({2, 2}, 8, at::kByte);
  return m;
}

at::Tensor floats_of(std::initializer_list<float> values, std::int64_t rows) {
  return at::tensor(std::vector<float>(values)).view({rows, -1});
}

TEST_CASE("A value is code less zero, times the scale of its group") {
  REQUIRE(values_of(small(false))
              .equal(floats_of(
                  {-4, -1.5, 3.5, 0, -10, -2, -7, -6, 1, 0, 0, -0.5}, 2)));
  REQUIRE(values_of(small(true))
              .equal(floats_of(
                  {0, 2.5, 7.5, 4, 0, 8, -1, 0, 7, 6, -1.75, -2.25}, 2)));
}

TEST_CASE("Packed matrices open to the codes that were packed") {
  const auto kind = GENERATE(PackedKind::kInt, PackedKind::kTernary);
  const bool symmetric = GENERATE(true, false);
  if (kind == PackedKind::kTernary && !symmetric) return;
  const kernels::QuantGrid grid{
      kind, kind == PackedKind::kInt ? 3 : 0, symmetric, 4, 0};
  const at::Tensor w = at::randn({5, 10});
  const kernels::Quantized q = kernels::quantize({w.clone(), {}}, grid);
  const kernels::PackedMatrix packed = kernels::pack(q, grid);
  const CodeMatrix opened = open_codes(packed);
  REQUIRE(opened.codes.equal(q.codes));
  REQUIRE(opened.bits == (kind == PackedKind::kInt ? 3 : 2));
  at::Tensor values = at::empty({5, 10});
  kernels::unpack_rows(packed, 0, values);
  REQUIRE(values_of(opened).equal(values));
}

TEST_CASE("Coded trits open like others") {
  const kernels::QuantGrid grid{PackedKind::kTernary, 0, true, 64, 0};
  const kernels::Quantized q =
      kernels::quantize({at::randn({9, 96}), {}}, grid);
  const auto kind =
      GENERATE(PackedKind::kTernaryWords, PackedKind::kTernaryHuffman);
  const kernels::TritCode code =
      kernels::encode_trits(kind, q.codes.to(at::kChar) - 1);
  const kernels::PackedMatrix coded{
      .kind = kind,
      .rows = 9,
      .cols = 96,
      .group = 64,
      .codes = code.codes,
      .scales = q.scales,
      .row_begin = code.row_begin,
      .table = kernels::prepare_trit_table(kind, code.table)};
  const CodeMatrix opened = open_codes(coded);
  REQUIRE(opened.codes.equal(q.codes));
  REQUIRE(opened.zeros.eq(1).all().item<bool>());
  REQUIRE(opened.scales.equal(q.scales.to(at::kFloat)));
}

TEST_CASE("Zeros may move to the middle of more bits") {
  const CodeMatrix m = small(true);
  const CodeMatrix wide = centered(m, 8);
  REQUIRE(wide.bits == 8);
  REQUIRE(wide.zeros.eq(128).all().item<bool>());
  REQUIRE(wide.codes[0][2].item<int>() == 128 + 15);
  REQUIRE(values_of(wide).equal(values_of(m)));
  REQUIRE_THROWS_AS(centered(m, 4), InternalError);
}

TEST_CASE("Groups may become smaller ones") {
  const CodeMatrix m = small(true);
  const CodeMatrix twos = regrouped(m, 2);
  REQUIRE(twos.groups() == 3);
  REQUIRE(values_of(twos).equal(values_of(m)));
  REQUIRE_THROWS_AS(regrouped(m, 3), InternalError);
  // A row of one group has any.
  CodeMatrix row = m;
  row.group = 6;
  row.scales = m.scales.narrow(1, 0, 1);
  row.zeros = m.zeros.narrow(1, 0, 1);
  REQUIRE(values_of(regrouped(row, 4)).equal(values_of(row)));
}

TEST_CASE("What is filled up is zero, whatever the zero points are") {
  const CodeMatrix m = small(true);
  const CodeMatrix larger = padded(m, 3, 9);
  const at::Tensor values = values_of(larger);
  REQUIRE(larger.groups() == 3);
  REQUIRE(values.narrow(0, 0, 2).narrow(1, 0, 6).equal(values_of(m)));
  REQUIRE(
      values.count_nonzero().item<int>() ==
      values_of(m).count_nonzero().item<int>());
  REQUIRE((larger.scales != 0).all().item<bool>());
  // One group stays one.
  CodeMatrix row = m;
  row.group = 6;
  row.scales = m.scales.narrow(1, 0, 1);
  row.zeros = m.zeros.narrow(1, 0, 1);
  REQUIRE(padded(row, 2, 9).groups() == 1);
  REQUIRE(values_of(padded(row, 2, 9)).narrow(1, 0, 6).equal(values_of(row)));
}

TEST_CASE("Scales of another type must be the same where they count") {
  CodeMatrix m = small(false);
  REQUIRE(scale_error(m, at::kHalf) == 0);
  // float16 has no 2^-30.
  m.scales = at::full({2, 2}, 0x1p-30F);
  REQUIRE(scale_error(m, at::kBFloat16) == 0);
  REQUIRE(scale_error(m, at::kHalf) == 1);
  m.codes = at::full({2, 6}, 8, at::kByte);
  REQUIRE(scale_error(m, at::kHalf) == 0);
}

TEST_CASE("Rows change places whole") {
  const CodeMatrix m = small(true);
  const CodeMatrix other = with_rows(m, at::tensor({1, 0}, at::kLong));
  REQUIRE(values_of(other)[0].equal(values_of(m)[1]));
  REQUIRE(values_of(other)[1].equal(values_of(m)[0]));
}

}  // namespace
}  // namespace fettle::exporter
