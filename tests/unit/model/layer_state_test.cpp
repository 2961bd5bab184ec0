// SPDX-License-Identifier: Apache-2.0
#include "model/layers/layer_state.h"

#include <catch2/catch.hpp>

#include "sample_config.h"

using namespace fettle::model;
using fettle::model::testing::sample;

TEST_CASE("states hold keys and values of every layer with attention") {
  // 2 layers, 2 heads of 4 keys and 4 values.
  const auto gqa = sample("qwen3_moe");
  CHECK(state_bytes(gqa, 10, at::kBFloat16) == 2 * 10 * 2 * (4 + 4) * 2);
  // Heads of 4 + 2 keys and 3 values.
  const auto mla = sample("deepseek_v2");
  CHECK(state_bytes(mla, 10, at::kFloat) == 2 * 10 * (4 + 2) * 4);
}

TEST_CASE("a convolution's state doesn't grow with the tokens") {
  // One layer with attention; the other keeps two inputs of 8 values.
  const auto lfm2 = sample("lfm2_moe");
  const std::int64_t attention = 2 * (4 + 4) * 2;
  CHECK(state_bytes(lfm2, 10, at::kBFloat16) == 10 * attention + 2 * 8 * 2);
  CHECK(state_bytes(lfm2, 20, at::kBFloat16) == 20 * attention + 2 * 8 * 2);
  CHECK(state_bytes(lfm2, 0, at::kBFloat16) == 0);
}
