// SPDX-License-Identifier: Apache-2.0
// Whole experts and neurons cut so that all layers have one number of experts
// and all experts one width, as stock layouts want them without padding: of all
// such shapes that fit, the one that loses the least. A layer's experts go by
// the sum of their scores, times the exchange rate.
#pragma once

#include <cstdint>
#include <vector>

#include "model/family/model_config.h"
#include "trim/piles.h"
#include "trim/plan.h"

namespace fettle::trim {

// The fewest bytes that a pool of neuron piles, one an expert, can be brought
// to in this way.
std::int64_t stock_floor(
    const Pool& pool,
    const model::ModelConfig& config,
    const TrimOptions& options);

// Takes the experts that go whole out of the pool; returns the neurons kept of
// the others. `capacity`: bytes, at least stock_floor.
std::vector<std::int64_t> fill_stock(
    Pool& pool,
    const model::ModelConfig& config,
    const TrimOptions& options,
    std::int64_t capacity);

}  // namespace fettle::trim
