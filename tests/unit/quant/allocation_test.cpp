// SPDX-License-Identifier: Apache-2.0
#include "quant/allocation.h"

#include <catch2/catch.hpp>
#include <cmath>
#include <functional>
#include <limits>

#include "core/error.h"
#include "core/rng.h"

namespace fettle::quant {
namespace {

using Catch::Matchers::Contains;
using Items = std::vector<AllocationItem>;
using Choices = std::vector<std::int64_t>;

// A sum of as many errors as there are items rounds this much at most.
constexpr double kRounding = 1e-11;

struct Sum {
  std::int64_t bytes = 0;
  double error = 0;
};

Sum sum_of(const Items& items, const Choices& choices) {
  REQUIRE(choices.size() == items.size());
  Sum sum;
  for (std::size_t i = 0; i < items.size(); ++i) {
    const AllocationOption& option = items[i].options.at(choices[i]);
    sum.bytes += option.bytes;
    sum.error += option.error;
  }
  return sum;
}

// The least error of all choices, one after another; infinite where none fits.
double tried_out(const Items& items, std::int64_t budget) {
  double best = std::numeric_limits<double>::infinity();
  const std::function<void(std::size_t, Sum)> choose = [&](std::size_t i,
                                                           Sum sum) {
    if (sum.bytes > budget) return;
    if (i == items.size()) {
      best = std::min(best, sum.error);
      return;
    }
    for (const AllocationOption& option : items[i].options) {
      choose(i + 1, {sum.bytes + option.bytes, sum.error + option.error});
    }
  };
  choose(0, {});
  return best;
}

// The least error within each budget up to `budget`, by a table over bytes.
std::vector<double> table_of(const Items& items, std::int64_t budget) {
  std::vector<double> best(budget + 1, 0.0);
  for (const AllocationItem& item : items) {
    std::vector<double> next(
        budget + 1, std::numeric_limits<double>::infinity());
    for (const AllocationOption& option : item.options) {
      for (std::int64_t b = option.bytes; b <= budget; ++b) {
        next[b] = std::min(next[b], best[b - option.bytes] + option.error);
      }
    }
    best = std::move(next);
  }
  return best;
}

// No choice within the budget has an error below this, whatever the price of a
// byte: the best price is looked for by halving its logarithm's range.
double least_by_price(const Items& items, std::int64_t budget) {
  double low = -60, high = 60, bound = 0;
  for (int round = 0; round < 100; ++round) {
    const double price = std::exp((low + high) / 2);
    double error = 0;
    std::int64_t bytes = 0;
    for (const AllocationItem& item : items) {
      const AllocationOption* best = nullptr;
      const auto cost = [&](const AllocationOption& option) {
        return option.error + price * static_cast<double>(option.bytes);
      };
      for (const AllocationOption& option : item.options) {
        if (best == nullptr || cost(option) < cost(*best)) best = &option;
      }
      error += best->error;
      bytes += best->bytes;
    }
    bound =
        std::max(bound, error + price * static_cast<double>(bytes - budget));
    (bytes > budget ? low : high) = (low + high) / 2;
  }
  return bound;
}

enum class Kind { kWhole, kTies, kZeros, kCorrelated, kReal, kLattice };

AllocationOption random_option(Rng& rng, Kind kind) {
  const auto whole = [&](std::uint64_t limit) {
    return static_cast<std::int64_t>(rng.below(limit));
  };
  const auto whole_error = [&](std::uint64_t limit) {
    return static_cast<double>(rng.below(limit));
  };
  switch (kind) {
    case Kind::kTies:
      return {1 + whole(2), whole_error(2)};
    case Kind::kZeros:
      return {whole(20), rng.below(2) == 0 ? 0.0 : whole_error(9)};
    case Kind::kCorrelated: {
      const std::int64_t bytes = 1 + whole(30);
      return {bytes, 50.0 - static_cast<double>(bytes)};
    }
    case Kind::kReal:
      return {1 + whole(1000), std::exp(4 * rng.normal())};
    case Kind::kLattice:
      return {7 + 48 * whole(6), whole_error(40)};
    default:
      return {whole(40), whole_error(40)};
  }
}

Items random_items(Rng& rng, Kind kind, std::size_t count) {
  Items items(count);
  for (AllocationItem& item : items) {
    item.options.resize(1 + rng.below(5));
    for (AllocationOption& option : item.options) {
      option = random_option(rng, kind);
    }
  }
  return items;
}

std::int64_t most_bytes(const Items& items) {
  std::int64_t total = 0;
  for (const AllocationItem& item : items) {
    std::int64_t most = 0;
    for (const AllocationOption& option : item.options) {
      most = std::max(most, option.bytes);
    }
    total += most;
  }
  return total;
}

TEST_CASE("A budget goes to where a byte saves most") {
  // The second item's step saves 9 for 3 bytes, the first's 8 for 2; then the
  // first's next 3 for 2.
  const Items items{{{{1, 20}, {3, 12}, {5, 9}}}, {{{1, 10}, {4, 1}}}};
  const auto choices = [&](std::int64_t bytes) {
    return allocate(items, {bytes, 0}).choices;
  };
  REQUIRE(choices(2) == Choices{0, 0});
  REQUIRE(choices(4) == Choices{1, 0});
  REQUIRE(choices(5) == Choices{0, 1});
  REQUIRE(choices(6) == Choices{2, 0});
  REQUIRE(choices(7) == Choices{1, 1});
  REQUIRE(choices(9) == Choices{2, 1});
  REQUIRE(choices(1000) == Choices{2, 1});
}

TEST_CASE("What is fixed counts in the budget") {
  const Items items{{{{1, 20}, {3, 12}}}};
  REQUIRE(allocate(items, {102, 100}).choices == Choices{0});
  REQUIRE(allocate(items, {103, 100}).choices == Choices{1});
  REQUIRE(allocate(items, {103, 100}).bytes == 3);
  REQUIRE(allocate({}, {100, 100}).choices.empty());
}

TEST_CASE("Options that are worse in all are never chosen, equals by order") {
  const Items items{
      {{{5, 1}, {4, 2}, {4, 2}, {6, 1}, {4, 3}, {2, 4}}},
      {{{3, 0}, {2, 0}, {2, 0}}}};
  REQUIRE(allocate(items, {8, 0}).choices == Choices{0, 1});
  REQUIRE(allocate(items, {100, 0}).choices == Choices{0, 1});
  REQUIRE(allocate(items, {6, 0}).choices == Choices{1, 1});
  REQUIRE(allocate(items, {5, 0}).choices == Choices{5, 1});
}

TEST_CASE("An option off the hull is found where it is the best") {
  // 2 bytes of 10 save 4, 10 save 100: the relaxation never looks at the first.
  const Items items{{{{0, 100}, {2, 96}, {10, 0}}}};
  REQUIRE(allocate(items, {9, 0}).choices == Choices{1});
  REQUIRE(allocate(items, {10, 0}).choices == Choices{2});
}

TEST_CASE("The choice is the best of all, as trying out says") {
  Rng rng(5);
  for (int instance = 0; instance < 1200; ++instance) {
    const auto kind = static_cast<Kind>(instance % 6);
    const Items items = random_items(rng, kind, 1 + rng.below(7));
    const std::int64_t least = smallest_budget(items, 0);
    const std::int64_t budget =
        least +
        static_cast<std::int64_t>(rng.below(1 + most_bytes(items) - least + 3));
    const Allocation found = allocate(items, {budget, 0});
    const Sum sum = sum_of(items, found.choices);
    CAPTURE(instance, budget);
    REQUIRE(found.bytes == sum.bytes);
    REQUIRE(found.error == sum.error);
    REQUIRE(sum.bytes <= budget);
    REQUIRE(found.gap == 0);
    REQUIRE(sum.error <= tried_out(items, budget) * (1 + kRounding));
  }
}

TEST_CASE("The choice is the best of all, as a table over bytes says") {
  Rng rng(6);
  for (int instance = 0; instance < 60; ++instance) {
    const auto kind = static_cast<Kind>(instance % 6);
    const Items items = random_items(rng, kind, 40);
    const std::int64_t least = smallest_budget(items, 0);
    const std::int64_t most = most_bytes(items);
    const std::vector<double> table = table_of(items, most);
    double before = std::numeric_limits<double>::infinity();
    for (std::int64_t budget = least; budget <= most;
         budget += 1 + (most - least) / 12) {
      const Allocation found = allocate(items, {budget, 0});
      CAPTURE(instance, budget, found.states);
      REQUIRE(sum_of(items, found.choices).bytes <= budget);
      REQUIRE(found.gap == 0);
      REQUIRE(found.error <= table[budget] * (1 + kRounding));
      // More bytes never cost.
      REQUIRE(found.error <= before * (1 + kRounding));
      before = found.error;
    }
  }
}

// Matrices of a model whose experts have widths of their own, in 1.6 to 16 bits
// a weight with scales, of errors that differ by orders of magnitude.
Items model_like(std::size_t count) {
  Rng rng(7);
  Items items(count);
  for (std::size_t i = 0; i < count; ++i) {
    const auto width = static_cast<std::int64_t>(16 + rng.below(800));
    const std::int64_t rows = i % 3 == 2 ? 2048 : width;
    const std::int64_t cols = i % 3 == 2 ? width : 2048;
    const double scale =
        std::exp(3 * rng.normal()) * static_cast<double>(rows * cols);
    for (const double bits : {1.6, 2.0, 3.0, 4.0, 8.0, 16.0}) {
      const auto row = static_cast<std::int64_t>(
          std::ceil(static_cast<double>(cols) * bits / 8));
      const std::int64_t scales = bits < 16 ? 2 * ((cols + 127) / 128) : 0;
      const double noise = 0.8 + 0.4 * rng.uniform();
      items[i].options.push_back(
          {40 + rows * (row + scales),
           bits < 16 ? scale * noise * std::pow(4.0, -bits) : 0.0});
    }
  }
  return items;
}

TEST_CASE("Sixty thousand weights take few states and are proven") {
  const Items items = model_like(60000);
  const std::int64_t least = smallest_budget(items, 0);
  const std::int64_t most = most_bytes(items);
  for (const int percent : {5, 30, 80}) {
    const std::int64_t budget = least + (most - least) / 100 * percent;
    const Allocation found = allocate(items, {budget, 0});
    CAPTURE(percent, found.states);
    const Sum sum = sum_of(items, found.choices);
    REQUIRE(sum.bytes <= budget);
    REQUIRE(found.gap == 0);
    REQUIRE(found.states < 1000000);
    REQUIRE(sum.error <= least_by_price(items, budget) * (1 + 1e-5));
    REQUIRE(allocate(items, {budget, 0}).choices == found.choices);
  }
}

TEST_CASE("A proof that is given up says what it may have missed") {
  Rng rng(8);
  int missed = 0;
  for (int instance = 0; instance < 60; ++instance) {
    const Items items = random_items(rng, Kind::kReal, 6);
    const std::int64_t least = smallest_budget(items, 0);
    const std::int64_t budget = (least + most_bytes(items)) / 2;
    const double best = tried_out(items, budget);
    const auto states = static_cast<std::int64_t>(rng.below(12));
    const Allocation found = allocate(items, {budget, 0}, states);
    CAPTURE(instance, states, found.gap, found.error, best);
    REQUIRE(sum_of(items, found.choices).bytes <= budget);
    REQUIRE(found.states <= states);
    REQUIRE(found.error >= best * (1 - kRounding));
    REQUIRE(found.error - found.gap <= best * (1 + kRounding));
    if (found.error > best * (1 + kRounding)) {
      REQUIRE(found.gap > 0);
      ++missed;
    }
  }
  REQUIRE(missed > 0);
}

TEST_CASE("A budget below the smallest is refused, with the smallest") {
  const Items items{{{{300, 1}, {200, 5}}}, {{{50, 0}}}};
  REQUIRE(smallest_budget(items, 1000) == 1250);
  REQUIRE_NOTHROW(allocate(items, {1250, 1000}));
  REQUIRE_THROWS_WITH(
      allocate(items, {1249, 1000}),
      Contains("expected at least 1.22 KiB (1250 bytes), found") &&
          Contains("(1249)"));
  REQUIRE_THROWS_AS(allocate(items, {1249, 1000}), UserError);
}

TEST_CASE("An option whose error is no number is a bug") {
  const double error = GENERATE(-1.0, std::nan(""), HUGE_VAL);
  REQUIRE_THROWS_AS(allocate(Items{{{{1, error}}}}, {10, 0}), InternalError);
  REQUIRE_THROWS_AS(allocate(Items{{}}, {10, 0}), InternalError);
}

}  // namespace
}  // namespace fettle::quant
