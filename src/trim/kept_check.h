// SPDX-License-Identifier: Apache-2.0
// Whether a plan leaves something of every layer.
#pragma once

#include <cstdint>

#include "artifact/trim_plan.h"
#include "model/family/model_config.h"
#include "trim/plan.h"

namespace fettle::trim {

// Neurons of the widest expert.
std::int64_t widest_expert(const model::ModelConfig& config);

// Throws UserError, naming the first layer and what to do, where a layer that
// had neurons keeps none: `keep` and `budget` are above nothing, so that this
// comes from steps of --round, or from scores that are low in all of a layer.
void require_neurons(
    const artifact::TrimPlan& plan,
    const model::ModelConfig& config,
    const TrimOptions& options);

// A line for people on what was kept and why, if that is not the share that was
// asked for. Empty where the two differ by less than half a per cent.
std::string share_note(
    const artifact::TrimPlan& plan,
    const model::ModelConfig& config,
    const TrimOptions& options);

}  // namespace fettle::trim
