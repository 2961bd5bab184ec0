// SPDX-License-Identifier: Apache-2.0
// What the Granite families' config.json files have in common.
#pragma once

#include "core/json.h"
#include "model/family/config_common.h"
#include "model/family/model_config.h"

namespace fettle::model {

// Sizes, attention, the router, and the four multipliers. `defaults` need not
// name options. The layers are still empty.
ModelConfig parse_granite(const JsonObject& json, CommonDefaults defaults);

// Every layer sparse, with `shared_width` neurons in a shared expert.
void place_granite_experts(
    const JsonObject& json, std::int64_t shared_width, ModelConfig& config);

// See Family::write_uniform.
void write_granite_experts(
    Json& json, std::int64_t experts, std::int64_t width, std::int64_t top_k);

}  // namespace fettle::model
