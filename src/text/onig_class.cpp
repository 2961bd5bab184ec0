// SPDX-License-Identifier: Apache-2.0
#include "text/onig_class.h"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <cctype>
#include <cstdint>
#include <vector>

#include "core/error.h"
#include "text/case_folds.h"
#include "text/onig_sets.h"
#include "text/regex.h"
#include "text/utf8.h"

namespace fettle::text {
namespace {

char32_t parse_hex(std::string_view digits) {
  return static_cast<char32_t>(std::stoul(std::string(digits), nullptr, 16));
}

bool is_word(std::string_view name) {
  const auto set = property_set(name);
  return set && set->members == shorthand_set('w')->members;
}

bool all_hex(std::string_view digits) {
  for (const char c : digits) {
    if (std::isxdigit(static_cast<unsigned char>(c)) == 0) return false;
  }
  return true;
}

// "\\x{e9}" is a code point; "\\xe9" would be a byte.
char32_t read_hex(
    std::string_view in, std::size_t& at, const RefuseConstruct& refuse) {
  const bool braces = in.substr(at + 2, 1) == "{";
  const std::size_t begin = at + (braces ? 3 : 2);
  std::size_t end = begin;
  while (end < in.size() && end < begin + (braces ? 8 : 2) &&
         all_hex(in.substr(end, 1))) {
    ++end;
  }
  const std::string_view digits = in.substr(begin, end - begin);
  if (digits.empty() || (braces && in.substr(end, 1) != "}")) {
    refuse("'\\x' without digits");
  }
  const char32_t value = parse_hex(digits);
  if (!braces && value > 0x7f) refuse("a byte above '\\x7f'");
  if (value > 0x10ffff) refuse("a number that is no character");
  at = end + (braces ? 1 : 0);
  return value;
}

char32_t read_code_unit(
    std::string_view in, std::size_t& at, const RefuseConstruct& refuse) {
  const std::string_view digits = in.substr(at + 2, 4);
  if (digits.size() != 4 || !all_hex(digits)) {
    refuse("'\\u' without four digits");
  }
  at += 6;
  return parse_hex(digits);
}

class ClassReader {
 public:
  ClassReader(
      std::string_view in, std::size_t& at, const RefuseConstruct& refuse)
      : in_(in), at_(at), refuse_(refuse) {}

  struct Parsed {
    std::string pattern;  // what is in the brackets, without a leading ^
    bool negated = false;
  };

  Parsed read() {
    Parsed parsed;
    ++at_;
    if (looking_at("^")) {
      parsed.negated = true;
      ++at_;
    }
    for (bool first = true;; first = false) {
      if (at_ >= in_.size()) refuse_("a '[' without its ']'");
      if (in_[at_] == ']' && !first) break;
      if (looking_at("&&")) {
        at_ += 2;
        factors_.push_back(take_union());
      } else {
        element();
      }
    }
    ++at_;
    parsed.pattern = take_union();
    for (const std::string& factor : factors_) {
      parsed.pattern = fmt::format("(?:(?={}){})", factor, parsed.pattern);
    }
    return parsed;
  }

  static std::string text(const Parsed& parsed) {
    if (!parsed.negated) return parsed.pattern;
    return fmt::format("(?:(?!{})(?s:.))", parsed.pattern);
  }

 private:
  bool looking_at(std::string_view text) const {
    return in_.substr(at_, text.size()) == text;
  }

  // What stood between two && as a pattern of one character.
  std::string take_union() {
    std::vector<std::string> parts = std::move(sets_);
    sets_.clear();
    if (!members_.empty()) parts.push_back(fmt::format("[{}]", members_));
    members_.clear();
    if (parts.empty()) return "(?!)";
    if (parts.size() == 1) return parts[0];
    return fmt::format("(?:{})", fmt::join(parts, "|"));
  }

  void element() {
    if (looking_at("[:")) {
      if (posix()) return;
    }
    if (in_[at_] == '[') {
      ClassReader inner(in_, at_, refuse_);
      sets_.push_back(text(inner.read()));
      return;
    }
    if (in_[at_] == '\\' && shorthand()) return;
    const char32_t low = character();
    const bool range = looking_at("-") && at_ + 1 < in_.size() &&
                       in_[at_ + 1] != ']' && in_.substr(at_ + 1, 2) != "&&";
    // A hyphen that follows a range or a set is one.
    if (low == '-' && range) refuse_("'--' inside brackets");
    if (!range) {
      members_ += character_text(low);
      return;
    }
    ++at_;
    if (in_[at_] == '[') refuse_("a range that ends in a bracket");
    const char32_t high = character();
    if (high < low) refuse_("a range that runs backward");
    members_ += fmt::format("{}-{}", character_text(low), character_text(high));
  }

  char32_t character() {
    if (in_[at_] != '\\') {
      const char32_t c = decode_at(in_, at_);
      at_ += utf8_length(in_[at_]);
      return c;
    }
    const auto c = read_escaped_character(in_, at_, true, refuse_);
    if (!c) refuse_(fmt::format("'{}' in a range", in_.substr(at_, 2)));
    return *c;
  }

  bool posix() {
    const std::size_t close = in_.find(":]", at_ + 2);
    if (close == std::string_view::npos || close > in_.find(']', at_)) {
      return false;
    }
    std::string_view name = in_.substr(at_ + 2, close - at_ - 2);
    const bool negated = name.substr(0, 1) == "^";
    if (negated) name.remove_prefix(1);
    const auto set = posix_set(name);
    if (!set) refuse_(fmt::format("'[:{}:]'", name));
    add(set->pattern(negated));
    at_ = close + 2;
    return true;
  }

  bool shorthand() {
    const char c = at_ + 1 < in_.size() ? in_[at_ + 1] : '\0';
    if (c == 'p' || c == 'P') {
      add(read_property(in_, at_, true, refuse_));
      return true;
    }
    const auto byte = static_cast<unsigned char>(c);
    // Oniguruma's \w has Latin-1's raised digits outside of brackets only.
    const auto set = byte == 'w' || byte == 'W'
                         ? posix_set("word")
                         : shorthand_set(static_cast<char>(std::tolower(byte)));
    if (!set) return false;
    add(set->pattern(std::isupper(byte) != 0));
    at_ += 2;
    return true;
  }

  void add(const std::string& pattern) {
    if (pattern[0] == '[' && pattern[1] != '^') {
      members_ += pattern.substr(1, pattern.size() - 2);
    } else {
      sets_.push_back(pattern);
    }
  }

  std::string_view in_;
  std::size_t& at_;
  const RefuseConstruct& refuse_;
  std::string members_;               // the inside of a PCRE2 class
  std::vector<std::string> sets_;     // what a class can't hold
  std::vector<std::string> factors_;  // what stood before each &&
};

// With the characters that match a member where case is ignored. A member that
// folds to several characters would make the brackets match those too.
std::string fold_class(
    const ClassReader::Parsed& parsed, const RefuseConstruct& refuse) {
  const Regex regex("\\A" + parsed.pattern + "\\z", "brackets");
  Regex::Matcher matcher(regex);
  std::string text;
  const FoldedSet folded = fold_set([&](char32_t c) {
    text.clear();
    append_utf8(text, c);
    Span match{0, 0};
    return matcher.find(text, 0, match);
  });
  if (folded.has_long_fold && !parsed.negated) {
    refuse("brackets under (?i) with a letter of several in another case");
  }
  if (folded.missing.empty()) return parsed.pattern;
  std::string members;
  for (const char32_t c : folded.missing) members += character_text(c);
  return fmt::format("(?:{}|[{}])", parsed.pattern, members);
}

}  // namespace

std::string character_text(char32_t c) {
  if (c > 0x20 && c < 0x7f) {
    const char byte = static_cast<char>(c);
    const bool sign = std::ispunct(static_cast<unsigned char>(byte)) != 0;
    return sign ? std::string{'\\', byte} : std::string{byte};
  }
  if (c < 0x80)
    return fmt::format("\\x{{{:x}}}", static_cast<std::uint32_t>(c));
  std::string out;
  append_utf8(out, c);
  return out;
}

std::optional<char32_t> read_escaped_character(
    std::string_view in,
    std::size_t& at,
    bool in_class,
    const RefuseConstruct& refuse) {
  if (at + 1 >= in.size()) refuse("a backslash at its end");
  const char c = in[at + 1];
  if (c == 'x') return read_hex(in, at, refuse);
  if (c == 'u') return read_code_unit(in, at, refuse);
  static constexpr std::string_view kLetters = "tnrfaev";
  static constexpr std::string_view kMeaning = "\t\n\r\f\a\x1b\v";
  const auto byte = static_cast<unsigned char>(c);
  if (const auto i = kLetters.find(c); i != std::string_view::npos) {
    at += 2;
    return static_cast<char32_t>(kMeaning[i]);
  }
  if (c == 'b' && in_class) {
    at += 2;
    return 8;
  }
  if (std::isdigit(byte) != 0 && in_class) {
    refuse("an octal number inside brackets");
  }
  if (std::isalnum(byte) != 0) return std::nullopt;
  ++at;
  const char32_t character = decode_at(in, at);
  at += utf8_length(in[at]);
  return character;
}

std::string read_property(
    std::string_view in,
    std::size_t& at,
    bool in_class,
    const RefuseConstruct& refuse) {
  const std::size_t close = in.find('}', at);
  if (in.substr(at + 2, 1) != "{" || close == std::string_view::npos) {
    refuse("a property without braces");
  }
  std::string_view name = in.substr(at + 3, close - at - 3);
  bool negated = in[at + 1] == 'P';
  if (name.substr(0, 1) == "^") {
    negated = !negated;
    name.remove_prefix(1);
  }
  auto set = property_set(name);
  if (!set) refuse(fmt::format("the property '{}'", name));
  if (in_class && is_word(name)) set = posix_set("word");
  at = close + 1;
  return set->pattern(negated);
}

std::string read_class(
    std::string_view in,
    std::size_t& at,
    ClassOptions options,
    const RefuseConstruct& refuse) {
  ClassReader reader(in, at, refuse);
  ClassReader::Parsed parsed = reader.read();
  if (options.ignore_case) parsed.pattern = fold_class(parsed, refuse);
  const bool plain = parsed.pattern[0] == '[' && parsed.pattern[1] != '^';
  if (parsed.negated && plain) {
    return "[^" + parsed.pattern.substr(1);
  }
  return ClassReader::text(parsed);
}

}  // namespace fettle::text
