// SPDX-License-Identifier: Apache-2.0
#include "chain/frontier.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <numeric>
#include <utility>

#include "core/error.h"

namespace fettle::chain {
namespace {

// Products take as long for a width between multiples as for the next one: the
// rows of gate and up are whole vectors of 16 numbers then.
constexpr std::int64_t kProductUnit = 8;

// Widths of whole vectors, where these leave some to choose from.
Rules whole_products(const PlanSpace& space) {
  constexpr std::int64_t kWidths = 4;
  Rules rules = space.rules;
  const auto leaves_some = [](const ExpertPrice& expert) {
    return expert.width() == 0 || expert.width() >= kWidths * kProductUnit;
  };
  if (space.keep_min > 0) return rules;
  if (!std::ranges::all_of(space.table.experts, leaves_some)) return rules;
  rules.multiple = std::lcm(rules.multiple, kProductUnit);
  return rules;
}

FitPlan searched(
    const PlanSpace& space, const Rules& rules, std::int64_t budget) {
  return Search(space.reader, space.table, rules).within(budget);
}

// The more a neuron is worth, the more are kept: bisection of that.
FitPlan within(
    const PlanSpace& space, const Rules& rules, std::int64_t budget) {
  FitPlan best = searched(space, rules, budget);
  if (best.kept >= space.keep_min) return best;
  const auto at = [&](double nats) {
    Rules wide = rules;
    wide.neurons_nats = std::exp(nats);
    return searched(space, wide, budget);
  };
  double low = std::log(1e-6);
  double high = std::log(1e3);
  best = at(high);
  if (best.kept < space.keep_min) {
    throw UserError(
        "fit",
        "--keep-min",
        fmt::format(
            "at most {:.3f} of the neurons fit the budget, found {:g}",
            best.kept,
            space.keep_min));
  }
  constexpr int kHalvings = 12;
  for (int i = 0; i < kHalvings; ++i) {
    const double middle = 0.5 * (low + high);
    FitPlan plan = at(middle);
    if (plan.kept < space.keep_min) {
      low = middle;
      continue;
    }
    high = middle;
    if (plan.nats() < best.nats()) best = std::move(plan);
  }
  return best;
}

}  // namespace

FitPlan best_within(const PlanSpace& space, std::int64_t budget) {
  return within(space, space.rules, budget);
}

std::vector<FitPlan> frontier(const PlanSpace& space, int points) {
  const Search search(space.reader, space.table, space.rules);
  const auto least = static_cast<double>(search.least());
  const double range = static_cast<double>(search.most()) / least;
  std::vector<FitPlan> plans;
  for (int i = 0; i < points; ++i) {
    const double place = points > 1 ? static_cast<double>(i) / (points - 1) : 1;
    FitPlan plan = search.within(
        static_cast<std::int64_t>(std::ceil(least * std::pow(range, place))));
    const bool better = plans.empty() || (plan.bytes > plans.back().bytes &&
                                          plan.nats() < plans.back().nats());
    if (better && plan.kept >= space.keep_min) plans.push_back(std::move(plan));
  }
  return plans;
}

// The more a product is worth, the fewer there are: bisection of its price.
FitPlan fastest(
    const PlanSpace& space, std::int64_t budget, const SpeedPrice& price) {
  FitPlan best = best_within(space, budget);
  const double most =
      best.nats() + std::max(price.nats, price.share * best.nats());
  double low = std::log(1e-6);
  double high = std::log(10.0);
  constexpr int kHalvings = 10;
  for (int i = 0; i < kHalvings; ++i) {
    const double middle = 0.5 * (low + high);
    Rules fast = whole_products(space);
    fast.products_nats = std::exp(middle);
    FitPlan plan = within(space, fast, budget);
    if (plan.nats() > most) {
      high = middle;
      continue;
    }
    low = middle;
    if (plan.products < best.products) best = std::move(plan);
  }
  return best;
}

}  // namespace fettle::chain
