// SPDX-License-Identifier: Apache-2.0
// Chooses how much of each of many ranked lists to keep so that a total is met:
// the pure arithmetic of a trim, without models or files.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

namespace fettle::trim {

// What can be cut from one place, best first: an expert's neurons, or a layer's
// experts. Kept is a prefix whose length is `floor` plus whole steps, or `cap`.
struct Pile {
  std::vector<double> values;       // falling; compared across piles
  std::vector<std::int64_t> costs;  // of each value; empty: 1 each
  std::int64_t step = 1;            // items that come or go together
  std::int64_t floor = 0;           // fewest items kept
  std::int64_t cap = 0;             // most items kept

  std::int64_t size() const { return static_cast<std::int64_t>(values.size()); }
  std::int64_t cost(std::int64_t first, std::int64_t last) const;
  // [size + 1]: what the best k items are worth together.
  std::vector<double> value_sums() const;
};

// One pile for several whose kept lengths are to be equal, or as near as their
// sizes permit: item i stands for the i-th of each member that has one, and is
// worth their mean. Members have equal steps.
Pile in_step(std::span<const Pile> members);

// Indices of `scores` by falling score, ties by index. Scores are no NaN.
std::vector<std::uint32_t> falling_order(std::span<const float> scores);

struct FillOptions {
  std::int64_t capacity = 0;
  // Take one step more where that comes closer to the capacity.
  bool nearest = false;
};

// Items kept of each pile: the floors, then whole steps in the order of their
// mean value (ties by pile, then by place) as long as the cost stays within the
// capacity. The floors are kept whatever they cost. O(items).
std::vector<std::int64_t> fill(
    std::span<const Pile> piles, const FillOptions& options);

}  // namespace fettle::trim
