// SPDX-License-Identifier: Apache-2.0
#include "export/gguf/gguf_orders.h"

#include <catch2/catch.hpp>

#include "packed_tiny_model.h"

namespace fettle::exporter {
namespace {

using model::Role;
using model::WeightId;

std::vector<GgufPlace> places(const std::string& family, Role role) {
  // 2 key heads of 3, 4 value heads of 3.
  const auto config =
      model::testing::sample(family, {{"linear_value_head_dim", 3}});
  return gguf_places(config, gguf_family(config), {role, 0});
}

at::Tensor row(std::vector<std::int64_t> values) { return at::tensor(values); }

TEST_CASE("Value heads of Qwen3.5 stand in rounds of the key heads") {
  const auto of = [](Role role) {
    return places("qwen3_5_moe_text", role).at(0).order;
  };
  // Heads 0 and 1 belong to the first key head.
  CHECK(of(Role::kDeltaBeta).rows.equal(row({0, 2, 1, 3})));
  CHECK(of(Role::kDeltaGate)
            .rows.equal(row({0, 1, 2, 6, 7, 8, 3, 4, 5, 9, 10, 11})));
  CHECK(of(Role::kDeltaOut).columns.equal(of(Role::kDeltaGate).rows));
  CHECK(of(Role::kDeltaQkv).rows.slice(0, 0, 12).equal(at::arange(12)));
  CHECK(of(Role::kDeltaQkv)
            .rows.slice(0, 12)
            .equal(of(Role::kDeltaGate).rows + 12));
  CHECK(of(Role::kConvWeight).rows.equal(of(Role::kDeltaQkv).rows));
  CHECK_FALSE(of(Role::kDeltaNorm).columns.defined());
  CHECK_FALSE(of(Role::kExpertDown).rows.defined());
}

TEST_CASE("Qwen3-Next's projection goes to two tensors") {
  const auto two = places("qwen3_next", Role::kDeltaQkvGate);
  REQUIRE(two.size() == 2);
  CHECK(two[0].name == "blk.0.attn_qkv.weight");
  CHECK(two[1].name == "blk.0.attn_gate.weight");
  // A key head has 3 rows of query, 3 of key, 6 of values, 6 of gates.
  const auto& rows = two[0].order.rows;
  CHECK(rows.slice(0, 0, 6).equal(row({0, 1, 2, 18, 19, 20})));
  CHECK(rows.slice(0, 6, 12).equal(row({3, 4, 5, 21, 22, 23})));
  CHECK(rows.slice(0, 12, 18).equal(at::arange(6, 12)));
  CHECK(two[1].order.rows.slice(0, 0, 6).equal(at::arange(12, 18)));
  CHECK_FALSE(places("qwen3_next", Role::kDeltaOut)[0].order.columns.defined());
}

TEST_CASE("Norms have 1 added and rates are told as they act") {
  const at::Tensor values = at::tensor({0.0f, 0.5f, -1.0f, 2.0f}).view({1, 4});
  const auto norm = places("qwen3_next", Role::kInputNorm)[0].order;
  CHECK(ordered(norm, values).equal(values + 1));
  const auto own = places("qwen3_next", Role::kDeltaNorm)[0].order;
  CHECK(ordered(own, values).equal(values));
  const auto rate = places("qwen3_next", Role::kDeltaLogRate)[0].order;
  CHECK(ordered(rate, values).equal(-values.exp()));
  const auto tiled = places("qwen3_5_moe_text", Role::kDeltaLogRate)[0].order;
  const at::Tensor moved = values.index_select(1, row({0, 2, 1, 3}));
  CHECK(ordered(tiled, values).equal(-moved.exp()));
}

TEST_CASE("Rotary pairs of Mixtral are neighbours") {
  const auto query = places("mixtral", Role::kQProj)[0].order;
  CHECK(query.rows.equal(row({0, 2, 1, 3, 4, 6, 5, 7})));
}

}  // namespace
}  // namespace fettle::exporter
