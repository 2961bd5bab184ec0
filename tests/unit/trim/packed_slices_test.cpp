// SPDX-License-Identifier: Apache-2.0
#include "trim/packed_slices.h"

#include <catch2/catch.hpp>

#include "kernels/gptq.h"

using namespace fettle;
using namespace fettle::trim;
using kernels::PackedKind;
using kernels::PackedMatrix;
using kernels::QuantGrid;

namespace {

at::Tensor weights(std::int64_t rows, std::int64_t cols) {
  return at::arange(rows * cols, at::kFloat).mul(0.37).sin().view({rows, cols});
}

PackedMatrix packed(
    const QuantGrid& grid, std::int64_t rows, std::int64_t cols) {
  return kernels::pack(
      kernels::quantize({weights(rows, cols), {}}, grid), grid);
}

at::Tensor values(const PackedMatrix& m) {
  at::Tensor out = at::empty({m.rows, m.cols}, at::kFloat);
  kernels::unpack_rows(m, 0, out);
  return out;
}

model::PackedHeader header_of(const PackedMatrix& m) {
  const at::Tensor stored = model::to_stored(m);
  return model::parse_packed_header(
      {static_cast<const std::byte*>(stored.const_data_ptr()), stored.nbytes()},
      stored.numel(),
      "w");
}

const QuantGrid kGrids[] = {
    {PackedKind::kInt, 4, true, 32, 0},
    {PackedKind::kInt, 3, false, 20, 0},
    {PackedKind::kTernary, 0, true, 256, 0}};

}  // namespace

TEST_CASE("rows of a packed matrix are taken exactly") {
  for (const QuantGrid& grid : kGrids) {
    const PackedMatrix whole = packed(grid, 9, 50);
    const at::Tensor index = at::tensor({0, 3, 4, 8}, at::kLong);
    const PackedMatrix some = select_rows(whole, index);
    CHECK(at::equal(values(some), values(whole).index_select(0, index)));
    const auto expected = resized(header_of(whole), 4, 50);
    CHECK(model::to_stored(some).numel() == expected.bytes());
  }
}

TEST_CASE("no rows are left of an expert without neurons") {
  const PackedMatrix none =
      select_rows(packed(kGrids[0], 9, 50), at::empty({0}, at::kLong));
  CHECK(values(none).sizes() == at::IntArrayRef({0, 50}));
}

TEST_CASE("columns are rounded anew by the same scheme") {
  for (const QuantGrid& grid : kGrids) {
    const PackedMatrix whole = packed(grid, 6, 64);
    const at::Tensor index = at::arange(0, 64, 2, at::kLong);
    const at::Tensor left = values(whole).index_select(1, index);
    const auto header = header_of(whole);
    const PackedMatrix again = rounded_anew(left, header);
    CHECK(again.kind == whole.kind);
    CHECK(again.bits == whole.bits);
    CHECK(model::to_stored(again).numel() == resized(header, 6, 32).bytes());
    const double error = (values(again) - left).square().sum().item<double>();
    CHECK(error < 0.02 * left.square().sum().item<double>());
  }
}
