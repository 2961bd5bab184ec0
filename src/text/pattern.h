// SPDX-License-Identifier: Apache-2.0
// The "pattern" of a tokenizer.json component: a literal string or a regular
// expression in Oniguruma's syntax.
#pragma once

#include <string_view>

#include "core/json.h"
#include "text/regex.h"

namespace fettle::text {

// Reads {"String": s} or {"Regex": r}. A literal may not be empty.
// Throws UserError about the component on anything else.
Regex read_pattern(const JsonObject& component, std::string_view key);

// Whether the pattern under `key` is a regular expression, not a literal.
bool is_regex_pattern(const JsonObject& component, std::string_view key);

}  // namespace fettle::text
