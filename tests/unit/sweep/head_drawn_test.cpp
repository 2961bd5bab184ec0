// SPDX-License-Identifier: Apache-2.0
#include <catch2/catch.hpp>
#include <cmath>

#include "sweep/head.h"

namespace fettle::sweep {
namespace {

TEST_CASE("A draw falls on the token whose share of the line holds it") {
  // Probabilities 1/8, 1/2, 1/4, 1/8.
  const at::Tensor row =
      at::tensor({0.125, 0.5, 0.25, 0.125}, at::kFloat).log();
  const at::Tensor draws =
      at::tensor({0.0, 0.1, 0.13, 0.6, 0.63, 0.87, 0.88, 1.0}, at::kFloat);
  const at::Tensor drawn = drawn_targets(row.expand({8, 4}), draws);
  REQUIRE(drawn.equal(at::tensor({0, 0, 1, 1, 2, 2, 3, 3}, at::kLong)));
}

TEST_CASE("Tokens without a chance are never drawn") {
  const float none = -std::numeric_limits<float>::infinity();
  const at::Tensor row = at::tensor({none, 0.0f, none, 0.0f}, at::kFloat);
  const at::Tensor draws = at::tensor({0.0, 0.499, 0.501}, at::kFloat);
  const at::Tensor drawn = drawn_targets(row.expand({3, 4}), draws);
  REQUIRE(drawn.equal(at::tensor({1, 1, 3}, at::kLong)));
}

}  // namespace
}  // namespace fettle::sweep
