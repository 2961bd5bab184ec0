// SPDX-License-Identifier: Apache-2.0
// The best plans over a range of budgets, and those that trade a little of the
// model's quality for speed.
#pragma once

#include <cstdint>
#include <vector>

#include "chain/search.h"

namespace fettle::chain {

// Whose plans are looked for.
struct PlanSpace {
  const model::ModelReader& reader;
  const PriceTable& table;
  Rules rules = {};
  double keep_min = 0;  // least share of all neurons together that is kept
};

// The best plan within a budget of bytes. Throws UserError where the budget
// can't hold the least, or so many neurons.
FitPlan best_within(const PlanSpace& space, std::int64_t budget);

// Plans within `points` budgets, evenly apart by their logarithms, from the
// least on that is allowed; each takes more bytes and costs less than the one
// before.
std::vector<FitPlan> frontier(const PlanSpace& space, int points);

// What speed may cost: at most so much more than the best plan within the
// budget, in nats a token and as a share of its loss, whichever is more.
struct SpeedPrice {
  double nats = 0.004;
  double share = 1.0;
};

// Of plans within the budget that cost no more than the price allows, the one
// with the fewest products of routed experts.
FitPlan fastest(
    const PlanSpace& space, std::int64_t budget, const SpeedPrice& price);

}  // namespace fettle::chain
