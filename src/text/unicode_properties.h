// SPDX-License-Identifier: Apache-2.0
// Scripts and properties of characters as Unicode 16 has them, which the
// reference's regular expressions know: what PCRE2 10.42 (Unicode 14) lacks.
// Names are in lower case, without spaces, hyphens and underscores.
#pragma once

#include <span>
#include <string_view>

namespace fettle::text {

struct PropertyRange {
  std::string_view name;
  char32_t first;
  char32_t last;
};

// Characters that are to be added to what PCRE2 has under a name.
std::span<const PropertyRange> property_additions();

// Whether `name` is a script that both engines know.
bool is_script(std::string_view name);

}  // namespace fettle::text
