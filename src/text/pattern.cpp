// SPDX-License-Identifier: Apache-2.0
#include "text/pattern.h"

#include "text/onig_pattern.h"

namespace fettle::text {

bool is_regex_pattern(const JsonObject& component, std::string_view key) {
  return component.object(key).has("Regex");
}

Regex read_pattern(const JsonObject& component, std::string_view key) {
  const JsonObject pattern = component.object(key);
  if (pattern.has("Regex")) {
    return Regex(
        translate_onig(pattern.string("Regex"), component.subject()),
        component.subject());
  }
  if (!pattern.has("String")) {
    component.refuse(key, "must be {\"String\": …} or {\"Regex\": …}");
  }
  const std::string literal = pattern.string("String");
  if (literal.empty()) component.refuse(key, "is an empty string");
  return Regex(escape_regex(literal), component.subject());
}

}  // namespace fettle::text
