// SPDX-License-Identifier: Apache-2.0
// JSON values as messages show them.
#pragma once

#include <string>

#include "core/json.h"

namespace fettle {

// On one line, cut after 80 characters; NaN and infinity by Python's names.
std::string shown(const Json& value);

}  // namespace fettle
