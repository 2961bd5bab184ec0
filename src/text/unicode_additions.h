// SPDX-License-Identifier: Apache-2.0
// Characters that Unicode 15.0, 15.1 and 16.0 assigned. PCRE2's own tables may
// be those of Unicode 14, while the reference tokenizer's are of Unicode 16; a
// pattern that names a general category gets these ranges added, which changes
// nothing where PCRE2 already knows them.
#pragma once

#include <span>

namespace fettle::text {

struct CategoryRange {
  char32_t first;
  char32_t last;         // included
  const char* category;  // two letters: "Lu", "Nd", ...
};

std::span<const CategoryRange> unicode_additions();

}  // namespace fettle::text
