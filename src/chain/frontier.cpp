// SPDX-License-Identifier: Apache-2.0
#include "chain/frontier.h"

#include <algorithm>
#include <cmath>

namespace fettle::chain {

std::vector<FitPlan> frontier(
    const model::ModelReader& reader,
    const PriceTable& table,
    const Rules& rules,
    int points) {
  const Search search(reader, table, rules);
  const auto least = static_cast<double>(search.least());
  const double range = static_cast<double>(search.most()) / least;
  std::vector<FitPlan> plans;
  for (int i = 0; i < points; ++i) {
    const double place = points > 1 ? static_cast<double>(i) / (points - 1) : 1;
    FitPlan plan = search.within(
        static_cast<std::int64_t>(std::ceil(least * std::pow(range, place))));
    const bool better = plans.empty() || (plan.bytes > plans.back().bytes &&
                                          plan.nats() < plans.back().nats());
    if (better) plans.push_back(std::move(plan));
  }
  return plans;
}

// The more a product is worth, the fewer there are: bisection of its price.
FitPlan fastest(
    const model::ModelReader& reader,
    const PriceTable& table,
    const Rules& rules,
    std::int64_t budget,
    const SpeedPrice& price) {
  FitPlan best = Search(reader, table, rules).within(budget);
  const double most =
      best.nats() + std::max(price.nats, price.share * best.nats());
  double low = std::log(1e-6);
  double high = std::log(10.0);
  constexpr int kHalvings = 10;
  for (int i = 0; i < kHalvings; ++i) {
    const double middle = 0.5 * (low + high);
    Rules fast = rules;
    fast.products_nats = std::exp(middle);
    FitPlan plan = Search(reader, table, fast).within(budget);
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
