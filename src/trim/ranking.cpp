// SPDX-License-Identifier: Apache-2.0
#include "trim/ranking.h"

#include <algorithm>
#include <bit>
#include <numeric>

namespace fettle::trim {
namespace {

struct Step {
  double value;  // mean over its items
  std::uint32_t pile;
  std::uint32_t first;  // item
};

bool better(const Step& a, const Step& b) {
  if (a.value != b.value) return a.value > b.value;
  if (a.pile != b.pile) return a.pile < b.pile;
  return a.first < b.first;
}

std::int64_t step_end(const Pile& pile, std::int64_t first) {
  return std::min(first + pile.step, pile.cap);
}

// The steps above the floors. A later step of a pile is never better than an
// earlier one, so that the best steps of all are prefixes of their piles.
std::vector<Step> make_steps(std::span<const Pile> piles) {
  std::vector<Step> steps;
  for (std::size_t p = 0; p < piles.size(); ++p) {
    const Pile& pile = piles[p];
    double last_value = 0;
    for (std::int64_t i = pile.floor; i < pile.cap; i += pile.step) {
      const std::int64_t end = step_end(pile, i);
      double value = 0;
      for (std::int64_t k = i; k < end; ++k) value += pile.values[k];
      value /= static_cast<double>(end - i);
      // Rounding of the mean must not lift it above the step before.
      if (i > pile.floor) value = std::min(value, last_value);
      last_value = value;
      steps.push_back(
          {value,
           static_cast<std::uint32_t>(p),
           static_cast<std::uint32_t>(i)});
    }
  }
  return steps;
}

std::int64_t step_cost(std::span<const Pile> piles, const Step& step) {
  const Pile& pile = piles[step.pile];
  return pile.cost(step.first, step_end(pile, step.first));
}

// Brings the longest affordable run of best steps to the front, and the step
// after them next; returns its length and reduces `left`. Quickselect on cost:
// a full sort would take most of the time of a plan.
std::size_t take_best(
    std::span<const Pile> piles, std::vector<Step>& steps, std::int64_t& left) {
  std::size_t low = 0;
  std::size_t high = steps.size();
  while (high - low > 1) {
    const std::size_t middle = low + (high - low) / 2;
    const auto begin = steps.begin();
    std::nth_element(
        begin + static_cast<std::ptrdiff_t>(low),
        begin + static_cast<std::ptrdiff_t>(middle),
        begin + static_cast<std::ptrdiff_t>(high),
        better);
    std::int64_t cost = 0;
    for (std::size_t i = low; i < middle; ++i) {
      cost += step_cost(piles, steps[i]);
    }
    if (cost <= left) {
      left -= cost;
      low = middle;
    } else {
      high = middle;
    }
  }
  if (low < steps.size() && step_cost(piles, steps[low]) <= left) {
    left -= step_cost(piles, steps[low]);
    ++low;
  }
  return low;
}

}  // namespace

std::int64_t Pile::cost(std::int64_t first, std::int64_t last) const {
  if (costs.empty()) return last - first;
  return std::accumulate(
      costs.begin() + first, costs.begin() + last, std::int64_t{0});
}

std::vector<double> Pile::value_sums() const {
  std::vector<double> sums(values.size() + 1, 0.0);
  std::partial_sum(values.begin(), values.end(), sums.begin() + 1);
  return sums;
}

Pile in_step(std::span<const Pile> members) {
  Pile result;
  std::int64_t longest = 0;
  for (const Pile& member : members) {
    result.step = member.step;
    result.floor = std::max(result.floor, member.floor);
    result.cap = std::max(result.cap, member.cap);
    longest = std::max(longest, member.size());
  }
  result.values.assign(static_cast<std::size_t>(longest), 0.0);
  result.costs.assign(static_cast<std::size_t>(longest), 0);
  for (const Pile& member : members) {
    for (std::int64_t i = 0; i < member.size(); ++i) {
      result.values[i] += member.values[i];
      ++result.costs[i];
    }
  }
  for (std::int64_t i = 0; i < longest; ++i) {
    result.values[i] /= static_cast<double>(result.costs[i]);
    // Where short members end, the mean of the others must not rise.
    if (i > 0) {
      result.values[i] = std::min(result.values[i], result.values[i - 1]);
    }
  }
  return result;
}

std::vector<std::uint32_t> falling_order(std::span<const float> scores) {
  // One integer per item, whose order is that of (falling score, index).
  std::vector<std::uint64_t> keys(scores.size());
  for (std::size_t i = 0; i < scores.size(); ++i) {
    // Adding 0 makes -0 and 0 one.
    const auto bits = std::bit_cast<std::uint32_t>(scores[i] + 0.0f);
    const std::uint32_t rising = (bits >> 31) != 0 ? ~bits : bits | 0x80000000u;
    keys[i] = (static_cast<std::uint64_t>(~rising) << 32) | i;
  }
  std::ranges::sort(keys);
  std::vector<std::uint32_t> order(keys.size());
  std::ranges::transform(keys, order.begin(), [](std::uint64_t key) {
    return static_cast<std::uint32_t>(key);
  });
  return order;
}

std::vector<std::int64_t> fill(
    std::span<const Pile> piles, const FillOptions& options) {
  std::vector<std::int64_t> kept;
  std::int64_t left = options.capacity;
  for (const Pile& pile : piles) {
    kept.push_back(pile.floor);
    left -= pile.cost(0, pile.floor);
  }
  std::vector<Step> steps = make_steps(piles);
  std::size_t taken = take_best(piles, steps, left);
  if (options.nearest && taken < steps.size() && left > 0) {
    const std::int64_t over = step_cost(piles, steps[taken]) - left;
    if (over < left) ++taken;
  }
  for (std::size_t i = 0; i < taken; ++i) {
    const Pile& pile = piles[steps[i].pile];
    std::int64_t& count = kept[steps[i].pile];
    count = std::max(count, step_end(pile, steps[i].first));
  }
  return kept;
}

}  // namespace fettle::trim
