// SPDX-License-Identifier: Apache-2.0
#include "trim/assignment.h"

#include <algorithm>
#include <catch2/catch.hpp>
#include <numeric>

#include "core/rng.h"

namespace fettle::trim {
namespace {

double total_cost(
    const std::vector<double>& cost, const std::vector<std::int64_t>& columns) {
  double sum = 0;
  for (std::size_t i = 0; i < columns.size(); ++i) {
    sum += cost[i * columns.size() + columns[i]];
  }
  return sum;
}

TEST_CASE("Assignments whose answer is plain") {
  using Columns = std::vector<std::int64_t>;
  REQUIRE(assign({}, 0).empty());
  REQUIRE(assign(std::vector<double>{7}, 1) == Columns{0});
  REQUIRE(assign(std::vector<double>{1, 2, 3, 5}, 2) == Columns{1, 0});
  // The cheapest of each row collide.
  REQUIRE(
      assign(std::vector<double>{1, 9, 9, 1, 2, 9, 1, 9, 5}, 3) ==
      Columns{0, 1, 2});
}

// Against every permutation.
TEST_CASE("No permutation costs less, for random costs") {
  Rng rng(2);
  for (int round = 0; round < 300; ++round) {
    const std::size_t n = 1 + rng.below(6);
    std::vector<double> cost(n * n);
    // Few distinct values, so that ties are common; some below 0.
    for (double& c : cost) c = static_cast<double>(rng.below(9)) - 4;
    const auto found = assign(cost, static_cast<std::int64_t>(n));
    std::vector<std::int64_t> order(n);
    std::iota(order.begin(), order.end(), 0);
    REQUIRE(std::is_permutation(found.begin(), found.end(), order.begin()));
    double best = total_cost(cost, order);
    do {
      best = std::min(best, total_cost(cost, order));
    } while (std::next_permutation(order.begin(), order.end()));
    REQUIRE(total_cost(cost, found) == best);
  }
}

TEST_CASE("A hidden permutation is found among many") {
  const std::int64_t n = 200;
  Rng rng(3);
  std::vector<std::int64_t> hidden(n);
  std::iota(hidden.begin(), hidden.end(), 0);
  rng.shuffle(std::span(hidden));
  std::vector<double> cost(n * n);
  for (double& c : cost) c = 1 + rng.uniform();
  for (std::int64_t i = 0; i < n; ++i) cost[i * n + hidden[i]] = 0.5;
  REQUIRE(assign(cost, n) == hidden);
}

}  // namespace
}  // namespace fettle::trim
