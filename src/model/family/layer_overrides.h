// SPDX-License-Identifier: Apache-2.0
// The "fettle" key of config.json: layers whose experts differ in number or
// width, that have condensers or a router bias (see config_json in
// model_config.h).
#pragma once

#include "core/json.h"
#include "model/family/model_config.h"

namespace fettle::model {

// Replaces top_k, widths, constants, condensers and router biases of the sparse
// layers by what "fettle" says; nothing where `json` has no such key. Throws
// UserError.
void apply_overrides(const JsonObject& json, ModelConfig& config);

// The key's value for `config`.
Json overrides_json(const ModelConfig& config);

}  // namespace fettle::model
