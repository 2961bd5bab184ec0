// SPDX-License-Identifier: Apache-2.0
// Condensers: experts that every token of a layer passes, whatever the router
// says. They are chosen before a trim, which must spare them.
#pragma once

#include <cstdint>
#include <vector>

#include "artifact/trim_plan.h"
#include "model/family/model_config.h"

namespace fettle::trim {

// By layer, ascending experts; empty: none in any layer.
using Condensers = std::vector<std::vector<std::int64_t>>;

Condensers condensers_of(const model::ModelConfig& config);

// A layer's condensers by their numbers after the trim; those that the plan
// removes are left out.
std::vector<std::int64_t> renumbered(
    const std::vector<std::int64_t>& condensers,
    const artifact::LayerPlan& plan);

}  // namespace fettle::trim
