// SPDX-License-Identifier: Apache-2.0
// Keys that have a meaning in some form of a data row, but not in all.
#pragma once

#include "core/json.h"

namespace fettle::text {

// Checks a row of text, or of a prompt and its completion. Throws UserError by
// name where it has a key that asks for something: tools, weights, masks. Null,
// empty values and unknown keys are notes of the row's owner.
void check_text_row(const JsonObject& row);

}  // namespace fettle::text
