// SPDX-License-Identifier: Apache-2.0
#include "text/onig_sets.h"

#include <fmt/format.h>

#include <cctype>
#include <cstdint>
#include <map>

#include "text/character_sets.h"
#include "text/unicode_additions.h"
#include "text/unicode_properties.h"

namespace fettle::text {
namespace {

// Unicode's long names of general categories.
const std::map<std::string_view, const char*> kCategories = {
    {"letter", "L"},
    {"uppercaseletter", "Lu"},
    {"lowercaseletter", "Ll"},
    {"titlecaseletter", "Lt"},
    {"modifierletter", "Lm"},
    {"otherletter", "Lo"},
    {"mark", "M"},
    {"combiningmark", "M"},
    {"nonspacingmark", "Mn"},
    {"spacingmark", "Mc"},
    {"enclosingmark", "Me"},
    {"number", "N"},
    {"decimalnumber", "Nd"},
    {"letternumber", "Nl"},
    {"othernumber", "No"},
    {"punctuation", "P"},
    {"connectorpunctuation", "Pc"},
    {"dashpunctuation", "Pd"},
    {"openpunctuation", "Ps"},
    {"closepunctuation", "Pe"},
    {"initialpunctuation", "Pi"},
    {"finalpunctuation", "Pf"},
    {"otherpunctuation", "Po"},
    {"symbol", "S"},
    {"mathsymbol", "Sm"},
    {"currencysymbol", "Sc"},
    {"modifiersymbol", "Sk"},
    {"othersymbol", "So"},
    {"separator", "Z"},
    {"spaceseparator", "Zs"},
    {"lineseparator", "Zl"},
    {"paragraphseparator", "Zp"},
    {"other", "C"},
    {"control", "Cc"},
    {"format", "Cf"},
    {"privateuse", "Co"},
    {"unassigned", "Cn"}};

std::string range_text(char32_t first, char32_t last) {
  return fmt::format(
      "\\x{{{:x}}}-\\x{{{:x}}}",
      static_cast<std::uint32_t>(first),
      static_cast<std::uint32_t>(last));
}

std::string loose_name(std::string_view name) {
  std::string out;
  for (const char c : name) {
    if (c == ' ' || c == '-' || c == '_') continue;
    out += static_cast<char>(std::tolower(static_cast<unsigned char>(c)));
  }
  return out;
}

CharacterSet category_set(const std::string& name) {
  CharacterSet set{fmt::format("\\p{{{}}}{}", name, added_members(name)), ""};
  // Unassigned to PCRE2 is what later versions of Unicode assigned.
  if (name == "C" || name == "Cn") {
    for (const CategoryRange& range : unicode_additions()) {
      if (name == "C" && range.category[0] == 'C') continue;
      set.except += range_text(range.first, range.last);
    }
  }
  // An Ahom vowel sign that changed sides.
  if (name == "Mn") set.except = "\\x{1171e}";
  if (name == "Mc") set.members += "\\x{1171e}";
  return set;
}

std::optional<CharacterSet> category_named(const std::string& loose) {
  if (const auto found = kCategories.find(loose); found != kCategories.end()) {
    return category_set(found->second);
  }
  if (loose.empty() || loose.size() > 2) return std::nullopt;
  std::string name = loose;
  name[0] =
      static_cast<char>(std::toupper(static_cast<unsigned char>(name[0])));
  for (const auto& [longer, shorter] : kCategories) {
    if (name == shorter) return category_set(name);
  }
  return std::nullopt;
}

CharacterSet with_additions(const std::string& pcre, std::string_view name) {
  CharacterSet set{pcre, ""};
  for (const PropertyRange& range : property_additions()) {
    if (range.name == name) set.members += range_text(range.first, range.last);
  }
  return set;
}

CharacterSet joined(CharacterSet a, const CharacterSet& b) {
  a.members += b.members;
  return a;
}

std::optional<CharacterSet> property_named(const std::string& loose) {
  for (const char* name : {"Alphabetic", "Emoji", "Ideographic"}) {
    const std::string key = loose_name(name);
    if (key == loose) {
      return with_additions(fmt::format("\\p{{{}}}", name), key);
    }
  }
  if (loose == "lowercase") return posix_set("lower");
  if (loose == "uppercase") return posix_set("upper");
  if (loose == "whitespace") return posix_set("space");
  if (loose == "any") return CharacterSet{"\\x{0}-\\x{10ffff}", ""};
  if (loose == "assigned") {
    CharacterSet set{"\\P{Cn}", ""};
    for (const CategoryRange& range : unicode_additions()) {
      set.members += range_text(range.first, range.last);
    }
    return set;
  }
  return std::nullopt;
}

}  // namespace

std::string CharacterSet::pattern(bool negated) const {
  if (except.empty()) {
    return fmt::format("[{}{}]", negated ? "^" : "", members);
  }
  return negated ? fmt::format("(?:[^{}]|[{}])", members, except)
                 : fmt::format("(?:(?![{}])[{}])", except, members);
}

std::optional<CharacterSet> property_set(std::string_view name) {
  const std::string loose = loose_name(name);
  if (auto set = category_named(loose)) return set;
  if (is_script(loose)) {
    return with_additions(fmt::format("\\p{{sc:{}}}", loose), loose);
  }
  if (auto set = property_named(loose)) return set;
  // Outside of brackets these three mean something else.
  if (loose == "punct" || loose == "word" || loose == "ascii") {
    if (loose == "punct") return category_set("P");
    return loose == "word" ? shorthand_set('w') : posix_set("ascii");
  }
  return posix_set(loose);
}

std::optional<CharacterSet> posix_set(std::string_view name) {
  const CharacterSet alpha = with_additions("\\p{Alphabetic}", "alphabetic");
  const CharacterSet space{std::string(kSpaceMembers), ""};
  if (name == "alpha") return alpha;
  if (name == "digit") return category_set("Nd");
  if (name == "alnum") return joined(alpha, category_set("Nd"));
  if (name == "ascii") return CharacterSet{"\\x{0}-\\x{7f}", ""};
  if (name == "blank") return CharacterSet{"\\p{Zs}\\x{9}", ""};
  if (name == "cntrl") return category_set("Cc");
  if (name == "lower") return with_additions("\\p{Lowercase}", "lowercase");
  if (name == "upper") return with_additions("\\p{Uppercase}", "uppercase");
  if (name == "space") return space;
  if (name == "punct") return joined(category_set("P"), category_set("S"));
  if (name == "xdigit") return CharacterSet{std::string(kHexMembers), ""};
  if (name == "word") {
    return CharacterSet{
        fmt::format("{}{}", kCommonWordMembers, added_word_members()), ""};
  }
  if (name == "graph" || name == "print") {
    CharacterSet set = *property_set("Assigned");
    set.except = "\\p{Cc}\\p{Cs}" + space.members;
    if (name == "print") set.except = "\\p{Cc}\\p{Cs}\\p{Zl}\\p{Zp}";
    return set;
  }
  return std::nullopt;
}

std::optional<CharacterSet> shorthand_set(char letter) {
  if (letter == 's') return posix_set("space");
  if (letter == 'd') return posix_set("digit");
  if (letter == 'w') return CharacterSet{onig_word_members(), ""};
  if (letter == 'h') return posix_set("xdigit");
  return std::nullopt;
}

}  // namespace fettle::text
