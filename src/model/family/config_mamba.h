// SPDX-License-Identifier: Apache-2.0
// What config.json says of Mamba-2 mixers.
#pragma once

#include "core/json.h"
#include "model/family/model_config.h"

namespace fettle::model {

// The limits that `time_step_limit` sets to steps, from 0 to infinity where it
// is absent or null. Infinity is {"__float__": "Infinity"}, as transformers
// writes it. Refuses other lists.
void parse_step_limits(const JsonObject& json, MambaConfig& mamba);

// Refuses heads, of config.json's `key`, that groups do not divide.
void check_mamba_groups(
    const JsonObject& json, const MambaConfig& mamba, std::string_view key);

// Refuses sizes that do not fit each other: heads that groups do not divide, or
// another inner size than `expand` times the hidden size says.
void check_mamba(
    const JsonObject& json, const ModelConfig& config, std::int64_t expand);

}  // namespace fettle::model
