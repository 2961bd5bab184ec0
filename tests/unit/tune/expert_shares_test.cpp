// SPDX-License-Identifier: Apache-2.0
#include "tune/method/expert_shares.h"

#include <catch2/catch.hpp>

#include "core/error.h"

using namespace fettle;
using namespace fettle::tune;
using Catch::Contains;

namespace {

model::ModelConfig two_layers() {
  model::ModelConfig config;
  config.layers.resize(2);
  config.layers[1].sparse = true;
  config.layers[1].expert_widths = {4, 4, 4};
  return config;
}

void show(ExpertShares& shares, const at::Tensor& weights) {
  const at::Tensor selected = at::tensor({0, 1, 0, 2}, at::kLong).view({2, 2});
  const at::Tensor none;
  shares.on_routing(1, {none, none, none, selected, weights});
}

}  // namespace

TEST_CASE("a layer's shares count choices, or mixing weights") {
  const at::Tensor weights = at::tensor({0.5, 0.1, 0.3, 0.1}).view({2, 2});
  ExpertShares tokens(two_layers(), ShareOf::kTokens);
  ExpertShares gates(two_layers(), ShareOf::kGates);
  show(tokens, weights);
  show(gates, weights);
  CHECK(tokens.shares()[0].empty());
  CHECK(tokens.shares()[1] == std::vector<double>{0.5, 0.25, 0.25});
  const auto of_gates = gates.shares()[1];
  CHECK(of_gates[0] == Approx(0.8));
  CHECK(of_gates[1] == Approx(0.1));
}

TEST_CASE("shares of no tokens are refused") {
  const ExpertShares shares(two_layers(), ShareOf::kTokens);
  CHECK_THROWS_WITH(shares.shares(), Contains("score_sequences"));
}

TEST_CASE("the fewest experts hold the share, in order") {
  const std::vector<double> shares{0.1, 0.4, 0.2, 0.3};
  using Experts = std::vector<std::int64_t>;
  CHECK(fewest_experts(shares, 0.4) == Experts{1});
  CHECK(fewest_experts(shares, 0.41) == Experts{1, 3});
  CHECK(fewest_experts(shares, 0.9) == Experts{1, 2, 3});
  CHECK(fewest_experts(shares, 1.0) == Experts{0, 1, 2, 3});
  CHECK(fewest_experts({0.25, 0.25, 0.25, 0.25}, 0.5) == Experts{0, 1});
  CHECK(fewest_experts({}, 0.5).empty());
}
