// SPDX-License-Identifier: Apache-2.0
// An allocation's linear relaxation: options that may be mixed, solved by
// taking the steps that gain most a byte first.
#pragma once

#include <cstdint>
#include <limits>
#include <span>
#include <vector>

#include "quant/allocation.h"

namespace fettle::quant {

// An option of an item than which none of its others is better in one way and
// as good in the other.
struct Candidate {
  std::int64_t bytes;
  double error;
  std::int32_t item;
  std::int32_t option;
};

// From one option of an item to the next on the lower convex hull of its bytes
// and errors.
struct HullStep {
  double slope;  // error saved a byte, > 0; falls along an item's steps
  std::int32_t item;
  std::int32_t to;  // candidate
};

struct Relaxed {
  std::vector<Candidate> candidates;  // by item, then by rising bytes
  std::vector<std::int32_t> first;    // [items + 1] into candidates
  std::vector<HullStep> steps;        // by falling slope, then by item
  // Bytes above which no sum of options lies within the budget.
  std::int64_t budget = 0;

  // The steps [0, broken) are taken; the next no longer fits.
  std::size_t broken = 0;
  std::vector<std::int32_t> taken;  // [items] candidates
  std::int64_t bytes = 0;           // of those
  double error = 0;

  bool whole() const { return broken == steps.size() || bytes == budget; }
  double slope() const { return steps[broken].slope; }
  // Below which no choice's error is.
  double bound() const {
    return whole() ? error
                   : error - slope() * static_cast<double>(budget - bytes);
  }
};

// `budget` is of the items alone, and at least the least bytes of all.
Relaxed relax(std::span<const AllocationItem> items, std::int64_t budget);

}  // namespace fettle::quant
