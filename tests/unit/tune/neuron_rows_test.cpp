// SPDX-License-Identifier: Apache-2.0
#include "tune/sparse/neuron_rows.h"

#include <catch2/catch.hpp>

#include "tiny_model.h"

using namespace fettle;
using namespace fettle::tune;

namespace {

at::Tensor index(std::vector<std::int64_t> values) {
  return at::tensor(values, at::kLong);
}

}  // namespace

TEST_CASE("neurons find their rows among experts of any width") {
  // Widths 2, 0, 3: gate_up holds g0 g1 u0 u1 | g2 g3 g4 u2 u3 u4.
  const std::vector<std::int64_t> offsets{0, 2, 2, 5};
  const at::Tensor chosen = index({1, 2, 4});
  CHECK(ranges_of(chosen, offsets) == std::vector<std::int64_t>{0, 1, 1, 3});
  const BankRows rows = bank_rows(chosen, offsets, 2);
  CHECK(rows.inputs[0].equal(index({1, 4, 6})));
  CHECK(rows.inputs[1].equal(index({3, 7, 9})));
  CHECK(rows.down.equal(chosen));
  // Without gates, rows of up are those of down.
  const BankRows plain = bank_rows(chosen, offsets, 1);
  REQUIRE(plain.inputs.size() == 1);
  CHECK(plain.inputs[0].equal(chosen));
}

TEST_CASE("rows read from the model and written back change nothing") {
  const testing::TemporaryFolder folder;
  testing::write_tiny_model(folder.path());
  const model::ModelReader reader(folder.path());
  for (const std::int64_t layer : {1, 2}) {
    const at::Tensor chosen = index({0, 5, 7, 9, 15});
    const UnitRows rows = read_rows(reader, layer, chosen);
    model::LayerWeights weights = reader.read_layer(layer, at::kFloat);
    const at::Tensor gate_up = weights.experts.gate_up.clone();
    const at::Tensor down = weights.experts.down.clone();
    const BankRows at = bank_rows(chosen, weights.experts.offsets, 2);
    write_rows(at, rows.values, weights.experts);
    CHECK(weights.experts.gate_up.equal(gate_up));
    CHECK(weights.experts.down.equal(down));
    write_rows(at, rows.values + 1.0, weights.experts);
    CHECK_FALSE(weights.experts.gate_up.equal(gate_up));
    // Five neurons have ten rows of gate_up.
    CHECK((weights.experts.gate_up != gate_up).all(1).sum().item<int>() == 10);
    CHECK((weights.experts.down != down).all(1).sum().item<int>() == 5);
  }
}

TEST_CASE("indices are compared as sets") {
  const at::Tensor a = index({1, 3, 5, 8});
  const at::Tensor b = index({0, 3, 8, 9});
  const CommonPositions common = common_positions(a, b);
  CHECK(common.in_a.equal(index({1, 3})));
  CHECK(common.in_b.equal(index({1, 2})));
  CHECK(difference(a, b).equal(index({1, 5})));
  CHECK(difference(a, index({})).equal(a));
}

TEST_CASE("rows of two sets come together in order") {
  const auto rows = [](std::vector<std::int64_t> values) {
    const at::Tensor numbers = index(std::move(values));
    return UnitRows{
        numbers,
        numbers.to(at::kFloat).view({1, -1, 1}).expand({3, -1, 2}).clone()};
  };
  const UnitRows merged = merge_rows(rows({2, 7}), rows({0, 3}));
  CHECK(merged.index.equal(index({0, 2, 3, 7})));
  CHECK(merged.values.equal(rows({0, 2, 3, 7}).values));
  CHECK(merge_rows(no_units(3, 2), rows({4})).values.equal(rows({4}).values));
}
