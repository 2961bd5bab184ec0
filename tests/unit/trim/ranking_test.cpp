// SPDX-License-Identifier: Apache-2.0
#include "trim/ranking.h"

#include <algorithm>
#include <catch2/catch.hpp>
#include <numeric>
#include <tuple>

#include "core/rng.h"

namespace fettle::trim {
namespace {

Pile make_pile(std::vector<float> scores, std::int64_t step = 1) {
  Pile pile;
  for (const std::uint32_t i : falling_order(scores)) {
    pile.values.push_back(scores[i]);
  }
  pile.step = step;
  pile.cap = pile.size();
  return pile;
}

TEST_CASE("Scores are ordered from high to low, ties by index") {
  const std::vector<float> scores{1, 3, -2, 3, 0, -0.0f, 1e-30f};
  const std::vector<std::uint32_t> expected{1, 3, 0, 6, 4, 5, 2};
  REQUIRE(falling_order(scores) == expected);
  REQUIRE(falling_order({}).empty());
}

TEST_CASE("The best items of all piles are kept") {
  const std::vector<Pile> piles{
      make_pile({9, 1, 5}), make_pile({8, 7, 6}), make_pile({})};
  using Kept = std::vector<std::int64_t>;
  REQUIRE(fill(piles, {.capacity = 0}) == Kept{0, 0, 0});
  REQUIRE(fill(piles, {.capacity = 1}) == Kept{1, 0, 0});
  REQUIRE(fill(piles, {.capacity = 4}) == Kept{1, 3, 0});
  REQUIRE(fill(piles, {.capacity = 5}) == Kept{2, 3, 0});
  REQUIRE(fill(piles, {.capacity = 100}) == Kept{3, 3, 0});
}

TEST_CASE("Equal values go to the earlier pile") {
  const std::vector<Pile> piles{
      make_pile({1, 1, 1, 1}, 2), make_pile({1, 1, 1, 1}, 2)};
  REQUIRE(fill(piles, {.capacity = 6}) == std::vector<std::int64_t>{4, 2});
}

TEST_CASE("Steps come whole, the last one short") {
  // Steps: mean 9 and 1 of the first, 6 and 4 (one item) of the second.
  const std::vector<Pile> piles{
      make_pile({10, 8, 1, 1}, 2), make_pile({7, 5, 4}, 2)};
  using Kept = std::vector<std::int64_t>;
  REQUIRE(fill(piles, {.capacity = 3}) == Kept{2, 0});
  REQUIRE(fill(piles, {.capacity = 4}) == Kept{2, 2});
  REQUIRE(fill(piles, {.capacity = 5}) == Kept{2, 3});
  // One more step would be as far above as the rest is below: it stays out.
  REQUIRE(fill(piles, {.capacity = 6, .nearest = true}) == Kept{2, 3});
  REQUIRE(fill(piles, {.capacity = 1, .nearest = true}) == Kept{0, 0});
}

TEST_CASE("The nearest total may lie one step above the capacity") {
  const std::vector<Pile> piles{make_pile({4, 3, 2, 1, 0, 0, 0, 0}, 4)};
  using Kept = std::vector<std::int64_t>;
  REQUIRE(fill(piles, {.capacity = 7, .nearest = false}) == Kept{4});
  REQUIRE(fill(piles, {.capacity = 7, .nearest = true}) == Kept{8});
  REQUIRE(fill(piles, {.capacity = 5, .nearest = true}) == Kept{4});
}

TEST_CASE("Floors are kept and caps are not passed") {
  std::vector<Pile> piles{make_pile({1, 1, 1, 1}), make_pile({9, 9, 9, 9})};
  piles[0].floor = 2;
  piles[1].cap = 3;
  using Kept = std::vector<std::int64_t>;
  REQUIRE(fill(piles, {.capacity = 1}) == Kept{2, 0});
  REQUIRE(fill(piles, {.capacity = 4}) == Kept{2, 2});
  REQUIRE(fill(piles, {.capacity = 8}) == Kept{4, 3});
}

TEST_CASE("Costs count instead of items where they are given") {
  std::vector<Pile> piles{make_pile({9, 1}), make_pile({8, 7})};
  piles[0].costs = {10, 10};
  piles[1].costs = {3, 3};
  using Kept = std::vector<std::int64_t>;
  REQUIRE(fill(piles, {.capacity = 9}) == Kept{0, 0});
  REQUIRE(fill(piles, {.capacity = 13}) == Kept{1, 1});
  REQUIRE(fill(piles, {.capacity = 16}) == Kept{1, 2});
}

// Against a plain sort of all steps.
TEST_CASE("Filling equals sorting, for random piles") {
  Rng rng(11);
  for (int round = 0; round < 200; ++round) {
    std::vector<Pile> piles(1 + rng.below(6));
    std::int64_t total = 0;
    const auto step = static_cast<std::int64_t>(1 + rng.below(4));
    for (Pile& pile : piles) {
      std::vector<float> scores(rng.below(12));
      // Few distinct values, so that ties are common.
      for (float& s : scores) s = static_cast<float>(rng.below(5));
      pile = make_pile(scores, step);
      pile.floor = std::min<std::int64_t>(
          pile.size(), static_cast<std::int64_t>(rng.below(2)) * step);
      total += pile.size();
    }
    struct Reference {
      double mean;
      std::size_t pile;
      std::int64_t first, size;
    };
    std::vector<Reference> steps;
    std::vector<std::int64_t> expected;
    const auto capacity = static_cast<std::int64_t>(
        rng.below(static_cast<std::uint64_t>(total) + 2));
    std::int64_t left = capacity;
    for (std::size_t p = 0; p < piles.size(); ++p) {
      const Pile& pile = piles[p];
      expected.push_back(pile.floor);
      left -= pile.floor;
      for (std::int64_t i = pile.floor; i < pile.cap; i += step) {
        const std::int64_t size = std::min(step, pile.cap - i);
        const double sum = std::accumulate(
            pile.values.begin() + i, pile.values.begin() + i + size, 0.0);
        steps.push_back({sum / static_cast<double>(size), p, i, size});
      }
    }
    std::ranges::sort(steps, [](const Reference& a, const Reference& b) {
      return std::tuple(-a.mean, a.pile, a.first) <
             std::tuple(-b.mean, b.pile, b.first);
    });
    for (const Reference& s : steps) {
      if (s.size > left) break;
      left -= s.size;
      expected[s.pile] += s.size;
    }
    REQUIRE(fill(piles, {.capacity = capacity}) == expected);
  }
}

}  // namespace
}  // namespace fettle::trim
