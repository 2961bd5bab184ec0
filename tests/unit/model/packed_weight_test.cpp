// SPDX-License-Identifier: Apache-2.0
#include "model/weights/packed_weight.h"

#include <catch2/catch.hpp>
#include <vector>

#include "core/error.h"
#include "kernels/gptq.h"
#include "kernels/trit_code.h"

using namespace fettle;
using namespace fettle::model;
using kernels::PackedKind;
using kernels::PackedMatrix;
using kernels::QuantGrid;

namespace {

PackedMatrix sample(
    const QuantGrid& grid, std::int64_t rows, std::int64_t cols) {
  const at::Tensor w =
      at::arange(rows * cols, at::kFloat).mul(0.7).sin().view({rows, cols});
  return kernels::pack(kernels::quantize({w.clone(), {}}, grid), grid);
}

at::Tensor values(const PackedMatrix& m) {
  at::Tensor out = at::empty({m.rows, m.cols}, at::kFloat);
  kernels::unpack_rows(m, 0, out);
  return out;
}

std::span<std::byte> bytes(const at::Tensor& tensor) {
  return {static_cast<std::byte*>(tensor.data_ptr()), tensor.nbytes()};
}

}  // namespace

TEST_CASE("a packed weight is stored and read back") {
  const auto grid = GENERATE(
      QuantGrid{PackedKind::kInt, 8, true, 128, 0},
      QuantGrid{PackedKind::kInt, 4, false, 32, 0},
      QuantGrid{PackedKind::kInt, 3, false, 40, 0},
      QuantGrid{PackedKind::kInt, 2, true, 16, 0},
      QuantGrid{PackedKind::kTernary, 0, true, 256, 0});
  const auto cols = GENERATE(1, 40, 130);
  const PackedMatrix before = sample(grid, 3, cols);
  const at::Tensor stored = to_stored(before);
  CHECK(stored.numel() == stored_bytes(before));
  const PackedMatrix after = from_stored(stored, "w.packed");
  CHECK(at::equal(values(after), values(before)));
  CHECK(after.group == before.group);
}

TEST_CASE("coded trits are stored and read back") {
  const auto kind =
      GENERATE(PackedKind::kTernaryWords, PackedKind::kTernaryHuffman);
  const auto cols = GENERATE(1, 40, 1408);
  PackedMatrix before =
      sample({PackedKind::kTernary, 0, true, 256, 0.3}, 7, cols);
  const at::Tensor expected = values(before);
  at::Tensor trits = before.scales.new_empty({7, cols}, at::kFloat);
  PackedMatrix unscaled = before;
  unscaled.scales = at::ones_like(before.scales);
  kernels::unpack_rows(unscaled, 0, trits);
  const kernels::TritCode code =
      kernels::encode_trits(kind, trits.to(at::kChar));
  before.kind = kind;
  before.codes = code.codes;
  before.row_begin = code.row_begin;
  before.table = kernels::prepare_trit_table(kind, code.table);
  const at::Tensor stored = to_stored(before);
  CHECK(stored.numel() == stored_bytes(before));
  CHECK(at::equal(values(from_stored(stored, "w.packed")), expected));
  for (std::int64_t i = 0; i < stored.numel(); i += 1 + stored.numel() / 97) {
    at::Tensor damaged = stored.clone();
    bytes(damaged)[static_cast<std::size_t>(i)] ^= std::byte{1} << (i % 8);
    REQUIRE_THROWS_WITH(
        from_stored(damaged, "w.packed"), Catch::Contains("w.packed"));
  }
}

TEST_CASE("an empty weight is stored and read back") {
  const QuantGrid grid{PackedKind::kInt, 4, false, 32, 0};
  for (const auto& [rows, cols] :
       std::vector<std::pair<std::int64_t, std::int64_t>>{{0, 8}, {8, 0}}) {
    const PackedMatrix after =
        from_stored(to_stored(sample(grid, rows, cols)), "w.packed");
    CHECK(values(after).sizes() == at::IntArrayRef({rows, cols}));
  }
}

TEST_CASE("a flipped bit anywhere in a packed weight is told") {
  const at::Tensor stored =
      to_stored(sample({PackedKind::kInt, 4, false, 32, 0}, 3, 50));
  for (std::int64_t i = 0; i < stored.numel(); ++i) {
    at::Tensor damaged = stored.clone();
    bytes(damaged)[static_cast<std::size_t>(i)] ^= std::byte{1} << (i % 8);
    REQUIRE_THROWS_AS(from_stored(damaged, "w.packed"), UserError);
  }
}

TEST_CASE("a truncated packed weight is told") {
  const at::Tensor stored =
      to_stored(sample({PackedKind::kTernary, 0, true, 256, 0}, 3, 50));
  for (std::int64_t n = 0; n < stored.numel(); ++n) {
    REQUIRE_THROWS_AS(
        from_stored(stored.narrow(0, 0, n).clone(), "w.packed"), UserError);
  }
}

TEST_CASE("a packed weight's errors name it") {
  PackedMatrix m = sample({PackedKind::kInt, 4, true, 32, 0}, 2, 32);
  m.scales = at::full_like(m.scales, std::numeric_limits<float>::infinity());
  CHECK_THROWS_WITH(
      from_stored(to_stored(m), "layer.w.packed"),
      Catch::Contains("layer.w.packed") && Catch::Contains("infinite"));
}
