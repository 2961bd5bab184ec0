// SPDX-License-Identifier: Apache-2.0
#include "tune/part/state_tensors.h"

#include <catch2/catch.hpp>

#include "core/error.h"

using namespace fettle;
using namespace fettle::tune;
using Catch::Contains;

TEST_CASE("a tensor is taken when it is as expected") {
  const artifact::TensorMap map{{"a", at::ones({2, 5})}};
  CHECK(take_tensor(map, "a", {at::kFloat, {2, -1}}).equal(at::ones({2, 5})));
  CHECK_THROWS_WITH(
      take_tensor(map, "b", {at::kFloat, {2, 5}}), Contains("found none"));
  CHECK_THROWS_WITH(
      take_tensor(map, "a", {at::kFloat, {2, 4}}), Contains("[2, 5]"));
  CHECK_THROWS_WITH(
      take_tensor(map, "a", {at::kFloat, {10}}), Contains("[2, 5]"));
  CHECK_THROWS_AS(take_tensor(map, "a", {at::kInt, {2, 5}}), UserError);
}

TEST_CASE("an index must ascend within its limit") {
  const auto map = [](std::vector<int> values) {
    return artifact::TensorMap{{"i", at::tensor(values, at::kInt)}};
  };
  CHECK(take_index(map({0, 4}), "i", 5)
            .equal(at::tensor({std::int64_t{0}, std::int64_t{4}})));
  CHECK(take_index(map({}), "i", 0).size(0) == 0);
  CHECK_THROWS_WITH(take_index(map({0, 5}), "i", 5), Contains("found 5"));
  CHECK_THROWS_AS(take_index(map({3, 3}), "i", 5), UserError);
  CHECK_THROWS_AS(take_index(map({-1}), "i", 5), UserError);
}
