// SPDX-License-Identifier: Apache-2.0
// The sets of characters that Oniguruma has names for, as PCRE2 patterns of one
// character. Found by comparing both engines on every character.
#pragma once

#include <optional>
#include <string>
#include <string_view>

namespace fettle::text {

// The characters of `members` without those of `except`; both are written as
// the inside of a PCRE2 class.
struct CharacterSet {
  std::string members;
  std::string except;

  // A PCRE2 pattern of one character of the set, or of one outside of it.
  std::string pattern(bool negated = false) const;
};

// \p{name}: a general category, a script, or a property such as Alphabetic;
// nothing for a name that has no exact translation.
std::optional<CharacterSet> property_set(std::string_view name);

// [:name:] inside brackets.
std::optional<CharacterSet> posix_set(std::string_view name);

// What \s, \d, \w and \h stand for, by their letter in lower case.
std::optional<CharacterSet> shorthand_set(char letter);

}  // namespace fettle::text
