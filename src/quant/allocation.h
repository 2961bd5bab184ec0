// SPDX-License-Identifier: Apache-2.0
// Which option each of many items gets, so that a budget of bytes is kept and
// the sum of errors is least: the multiple-choice knapsack problem. A pure
// function; it knows no model.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

namespace fettle::quant {

struct AllocationOption {
  std::int64_t bytes = 0;
  double error = 0;  // >= 0, finite
};

// A weight, or weights that must share a choice.
struct AllocationItem {
  std::vector<AllocationOption> options;  // at least one
};

struct AllocationBudget {
  std::int64_t bytes = 0;  // of all
  std::int64_t fixed = 0;  // of it, for what has no choice
};

struct Allocation {
  std::vector<std::int64_t> choices;  // of each item: an index of its options
  std::int64_t bytes = 0;             // of the items, without what is fixed
  double error = 0;
  // No choice in the budget has an error below error - gap. 0: none is better,
  // up to the rounding of sums in double.
  double gap = 0;
  std::int64_t states = 0;  // that the proof took
};

// How many states the proof may have before it is given up: they take a second,
// and at most 56 bytes each.
inline constexpr std::int64_t kMaxStates = std::int64_t{1} << 23;

// The best choice, or the best found within `max_states` (see gap). Among
// equals the one of the first items and options: the same input gives the same
// choice. Throws UserError naming the smallest budget that would do when none
// fits.
// Source: Pisinger, "A minimal algorithm for the multiple-choice knapsack
// problem", European Journal of Operational Research 83 (1995): the linear
// relaxation names a few items whose choice is in doubt, and a dynamic program
// over those takes in one item after another until bounds rule out the rest.
Allocation allocate(
    std::span<const AllocationItem> items,
    const AllocationBudget& budget,
    std::int64_t max_states = kMaxStates);

// The smallest budget for which there is a choice.
std::int64_t smallest_budget(
    std::span<const AllocationItem> items, std::int64_t fixed);

}  // namespace fettle::quant
