// SPDX-License-Identifier: Apache-2.0
// How much the pools of a plan may keep.
#pragma once

#include <cstdint>
#include <vector>

#include "model/family/model_config.h"
#include "trim/piles.h"
#include "trim/plan.h"

namespace fettle::trim {

// The cost of a whole pool, and its least cost, in neurons, experts or bytes.
struct PoolNeed {
  std::int64_t whole = 0;
  std::int64_t floor = 0;
  const std::string* name = nullptr;
};

// The capacity of each pool under the share to keep or the budget. Throws
// UserError, naming what would do, where that is less than a pool's floor.
std::vector<std::int64_t> capacities(
    const std::vector<PoolNeed>& needs,
    const model::ModelConfig& config,
    const TrimOptions& options);

}  // namespace fettle::trim
