// SPDX-License-Identifier: Apache-2.0
// What must hold of any model, whatever its family.
#pragma once

#include <string>

#include "model/family/model_config.h"

namespace fettle::model {

// Throws UserError, with `subject` as the file's name, when a layer's experts
// don't fit the router's groups or top_k, or the model is absurdly large.
void check_config(const ModelConfig& config, const std::string& subject);

}  // namespace fettle::model
