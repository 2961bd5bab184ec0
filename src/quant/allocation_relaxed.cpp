// SPDX-License-Identifier: Apache-2.0
#include "quant/allocation_relaxed.h"

#include <algorithm>
#include <cmath>
#include <numeric>
#include <tuple>

#include "core/error.h"

namespace fettle::quant {
namespace {

void add_candidates(
    const AllocationItem& item, std::int32_t index, Relaxed& relaxed) {
  std::vector<Candidate> all;
  for (std::size_t o = 0; o < item.options.size(); ++o) {
    const AllocationOption& option = item.options[o];
    FETTLE_ASSERT(option.bytes >= 0 && option.error >= 0);
    FETTLE_ASSERT(std::isfinite(option.error));
    all.push_back(
        {option.bytes, option.error, index, static_cast<std::int32_t>(o)});
  }
  std::ranges::sort(all, {}, [](const Candidate& c) {
    return std::tuple(c.bytes, c.error, c.option);
  });
  double best = std::numeric_limits<double>::infinity();
  for (const Candidate& candidate : all) {
    if (!(candidate.error < best)) continue;
    best = candidate.error;
    relaxed.candidates.push_back(candidate);
  }
  relaxed.first.push_back(static_cast<std::int32_t>(relaxed.candidates.size()));
}

void add_steps(std::int32_t item, Relaxed& relaxed) {
  const std::int32_t begin = relaxed.first[item];
  std::vector<HullStep> hull;
  for (std::int32_t c = begin + 1; c < relaxed.first[item + 1]; ++c) {
    const Candidate& to = relaxed.candidates[c];
    const auto slope_from = [&](std::int32_t place) {
      const Candidate& from = relaxed.candidates[place];
      return (from.error - to.error) /
             static_cast<double>(to.bytes - from.bytes);
    };
    double slope = slope_from(hull.empty() ? begin : hull.back().to);
    while (!hull.empty() && slope >= hull.back().slope) {
      hull.pop_back();
      slope = slope_from(hull.empty() ? begin : hull.back().to);
    }
    hull.push_back({slope, item, c});
  }
  relaxed.steps.insert(relaxed.steps.end(), hull.begin(), hull.end());
}

// All sums of options differ by multiples of one number of bytes: the budget
// is rounded down to a sum that may be.
std::int64_t attainable(const Relaxed& relaxed, std::int64_t budget) {
  std::int64_t unit = 0;
  for (std::size_t i = 0; i + 1 < relaxed.first.size(); ++i) {
    const Candidate& least = relaxed.candidates[relaxed.first[i]];
    for (auto c = relaxed.first[i] + 1; c < relaxed.first[i + 1]; ++c) {
      unit = std::gcd(unit, relaxed.candidates[c].bytes - least.bytes);
    }
  }
  const std::int64_t spare = budget - relaxed.bytes;
  return unit == 0 ? relaxed.bytes : budget - spare % unit;
}

}  // namespace

Relaxed relax(std::span<const AllocationItem> items, std::int64_t budget) {
  Relaxed relaxed;
  relaxed.first.push_back(0);
  for (std::size_t i = 0; i < items.size(); ++i) {
    add_candidates(items[i], static_cast<std::int32_t>(i), relaxed);
  }
  for (std::size_t i = 0; i < items.size(); ++i) {
    add_steps(static_cast<std::int32_t>(i), relaxed);
    relaxed.taken.push_back(relaxed.first[i]);
    relaxed.bytes += relaxed.candidates[relaxed.first[i]].bytes;
  }
  FETTLE_ASSERT(relaxed.bytes <= budget);
  relaxed.budget = attainable(relaxed, budget);
  // Slopes of an item fall, so that its steps stay in order.
  std::ranges::sort(relaxed.steps, [](const HullStep& a, const HullStep& b) {
    return std::tuple(-a.slope, a.item, a.to) <
           std::tuple(-b.slope, b.item, b.to);
  });
  for (const HullStep& step : relaxed.steps) {
    const Candidate& from = relaxed.candidates[relaxed.taken[step.item]];
    const Candidate& to = relaxed.candidates[step.to];
    if (relaxed.bytes + to.bytes - from.bytes > relaxed.budget) break;
    relaxed.bytes += to.bytes - from.bytes;
    relaxed.taken[step.item] = step.to;
    ++relaxed.broken;
  }
  // In the items' order, so that it does not hang on the steps'.
  for (const std::int32_t c : relaxed.taken) {
    relaxed.error += relaxed.candidates[c].error;
  }
  return relaxed;
}

}  // namespace fettle::quant
