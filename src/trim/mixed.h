// SPDX-License-Identifier: Apache-2.0
// Whole experts and neurons cut at one price per byte.
//
// At a price lambda, an expert keeps the k neurons worth at least that of their
// bytes, and costs (what it lost) + lambda (bytes it keeps, its router row
// among them); gone whole it costs exchange_rate x (all of its score). Experts
// go where that is less; the price is the lowest at which the rest fits. Then
// the neurons that stay are chosen anew among the experts that stay, so that
// the capacity is met to within a step.
#pragma once

#include <cstdint>
#include <vector>

#include "model/family/model_config.h"
#include "trim/piles.h"
#include "trim/plan.h"

namespace fettle::trim {

// Bytes of all experts of a pool of neuron piles, one an expert.
std::int64_t mixed_cost(const Pool& pool, const ModelBytes& bytes);

// The fewest bytes that the pool can be brought to.
std::int64_t mixed_floor(
    const Pool& pool,
    const model::ModelConfig& config,
    const TrimOptions& options);

// Takes the experts that go whole out of the pool; returns the neurons kept of
// the others. Every layer keeps the experts that its router needs, equally many
// of each group, and its condensers. `capacity`: bytes, at least mixed_floor.
std::vector<std::int64_t> fill_mixed(
    Pool& pool,
    const model::ModelConfig& config,
    const TrimOptions& options,
    std::int64_t capacity);

}  // namespace fettle::trim
