// SPDX-License-Identifier: Apache-2.0
#include "text/character_sets.h"

#include <fmt/format.h>

#include <cstdint>

#include "text/unicode_additions.h"

namespace fettle::text {

std::string added_word_members() {
  return added_members("L") + added_members("M") + added_members("Nd") +
         added_members("Nl") + added_members("Pc");
}

std::string added_members(std::string_view category) {
  std::string out;
  for (const CategoryRange& range : unicode_additions()) {
    const std::string_view name = range.category;
    if (name.substr(0, category.size()) != category) continue;
    out += fmt::format(
        "\\x{{{:x}}}-\\x{{{:x}}}",
        static_cast<std::uint32_t>(range.first),
        static_cast<std::uint32_t>(range.last));
  }
  return out;
}

std::string onig_word_members() {
  return fmt::format(
      "{}\\x{{b2}}\\x{{b3}}\\x{{b9}}\\x{{bc}}-\\x{{be}}{}",
      kCommonWordMembers,
      added_word_members());
}

std::string rust_word_members() {
  return fmt::format(
      "{}\\x{{200c}}\\x{{200d}}{}", kCommonWordMembers, added_word_members());
}

}  // namespace fettle::text
