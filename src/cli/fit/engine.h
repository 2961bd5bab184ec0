// SPDX-License-Identifier: Apache-2.0
// A chosen plan as the engine will hold it: bytes of its folder, and memory.
#pragma once

#include "chain/candidate.h"
#include "chain/engine_needs.h"
#include "chain/fit_plan.h"

namespace fettle::cli {

struct PlannedFit {
  const model::ModelReader& reader;
  const chain::PriceTable& table;
  const chain::FitPlan& plan;
  const chain::Engine& engine;
  const chain::FitSource& source;
  const chain::FitRequest& request;  // settled
};

// Bytes of all tensors in the format that the engine reads. Throws UserError
// where that has no place for the plan.
std::int64_t engine_bytes(const PlannedFit& planned);

// What it takes there, at the request's context.
chain::Footprint planned_footprint(const PlannedFit& planned);

// Throws UserError naming the least that any plan takes, by part, where
// `budget` is less.
void require_least(
    const model::ModelReader& reader,
    const chain::EngineNeeds& needs,
    std::int64_t budget);

}  // namespace fettle::cli
