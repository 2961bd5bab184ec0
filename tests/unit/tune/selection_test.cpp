// SPDX-License-Identifier: Apache-2.0
#include "tune/sparse/selection.h"

#include <catch2/catch.hpp>

using namespace fettle::tune;

namespace {

// A dense layer, then five and three neurons.
const UnitScores kScores{{}, {5, 1, 9, 0, 2}, {8, 7, 0}};

}  // namespace

TEST_CASE("the whole model is one ranking") {
  // Half of eight: 9, 8, 7, 5.
  CHECK(
      choose_units(kScores, 0.5, Scope::kGlobal) ==
      UnitSets{{}, {0, 2}, {0, 1}});
}

TEST_CASE("each layer is a ranking of its own") {
  // 2.5 of five rounds to 3, 1.5 of three to 2.
  CHECK(
      choose_units(kScores, 0.5, Scope::kLayer) ==
      UnitSets{{}, {0, 2, 4}, {0, 1}});
}

TEST_CASE("at least one neuron is chosen, at most all") {
  CHECK(choose_units(kScores, 1e-9, Scope::kGlobal) == UnitSets{{}, {2}, {}});
  CHECK(
      choose_units(kScores, 1.0, Scope::kLayer) ==
      UnitSets{{}, {0, 1, 2, 3, 4}, {0, 1, 2}});
}

TEST_CASE("equal scores go to the lower layer and number") {
  CHECK(
      choose_units({{3, 3}, {3, 3}}, 0.75, Scope::kGlobal) ==
      UnitSets{{0, 1}, {0}});
}

TEST_CASE("an exchange drops the least worth and grows the best others") {
  const UnitSets chosen{{}, {0, 2}, {0, 1}};
  const UnitScores worth{{}, {1.0, 4.0}, {2.0, 3.0}};
  const UnitScores scores{{}, {0, 6, 0, 5, 0}, {1, 0, 9}};
  // Half of four: 0 of layer 1 (worth 1) and 0 of layer 2 (worth 2) leave; 2 of
  // layer 2 (score 9) and 1 of layer 1 (score 6) come.
  CHECK(
      exchange_units({chosen, worth, scores, 0.5, Scope::kGlobal}) ==
      UnitSets{{}, {1, 2}, {1, 2}});
  CHECK(exchange_units({chosen, worth, scores, 0.0, Scope::kGlobal}) == chosen);
}

TEST_CASE("within a layer, as many grow as were dropped there") {
  const UnitSets chosen{{0, 1}, {0, 1}};
  const UnitScores worth{{1, 2}, {1, 2}};
  const UnitScores scores{{0, 0, 50, 60}, {0, 0, 1, 2}};
  CHECK(
      exchange_units({chosen, worth, scores, 0.5, Scope::kLayer}) ==
      UnitSets{{1, 3}, {1, 3}});
}

TEST_CASE("a neuron just dropped comes back when its gradient is largest") {
  const UnitSets chosen{{0, 1}};
  const UnitScores worth{{1, 2}};
  CHECK(
      exchange_units({chosen, worth, {{9, 0, 1}}, 0.5, Scope::kGlobal}) ==
      chosen);
}
