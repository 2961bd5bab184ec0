// SPDX-License-Identifier: Apache-2.0
// What the Granite families' config.json files have in common.
#pragma once

#include <string_view>

#include "core/json.h"
#include "model/family/config_common.h"
#include "model/family/model_config.h"

namespace fettle::model {

inline constexpr std::string_view kGraniteSharedKey =
    "shared_intermediate_size";

ExpertKeys granite_expert_keys();

// Sizes, attention, the router, and the four multipliers. The layers are still
// empty.
ModelConfig parse_granite(const JsonObject& json);

// Every layer sparse, with `shared_width` neurons in a shared expert.
void place_granite_experts(
    const JsonObject& json, std::int64_t shared_width, ModelConfig& config);

}  // namespace fettle::model
