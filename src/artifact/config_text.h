// SPDX-License-Identifier: Apache-2.0
// The text of a config.json.
#pragma once

#include <string>

#include "core/json.h"

namespace fettle::artifact {

// Values that JSON lacks as transformers writes them, {"__float__":
// "Infinity"}, which other programs would find as null.
std::string config_text(const Json& config);

}  // namespace fettle::artifact
