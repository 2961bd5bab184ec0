// SPDX-License-Identifier: Apache-2.0
#include "text/onig_pattern.h"

#include <fmt/format.h>

#include <cctype>
#include <cstddef>
#include <optional>
#include <vector>

#include "core/error.h"
#include "text/character_sets.h"
#include "text/utf8.h"

namespace fettle::text {
namespace {

bool is_general_category(std::string_view name) {
  return !name.empty() && name.size() <= 2 &&
         std::string_view("LMNPSZC").find(name[0]) != std::string_view::npos;
}

class Translator {
 public:
  Translator(std::string_view pattern, std::string_view subject)
      : in_(pattern), subject_(subject) {}

  std::string run() {
    while (at_ < in_.size()) {
      switch (in_[at_]) {
        case '\\':
          atom([&] { escape(); });
          break;
        case '[':
          atom([&] { character_class(); });
          break;
        case '(':
          open_group();
          break;
        case ')':
          close_group();
          break;
        case '{':
          interval();
          break;
        case '*':
        case '+':
        case '?':
        case '|':
        case '^':
        case '$':
          out_ += in_[at_++];
          break;
        default:
          atom([&] { character(); });
      }
    }
    return std::move(out_);
  }

 private:
  [[noreturn]] void refuse(std::string_view construct) const {
    throw UserError(
        "tokenizer",
        subject_,
        fmt::format(
            "the regular expression '{}' uses {}, which Fettle does not "
            "translate",
            in_,
            construct));
  }

  template <typename Emit>
  void atom(Emit emit) {
    atom_ = out_.size();
    emit();
  }

  void character() {
    const std::size_t size = utf8_length(in_[at_]);
    out_ += in_.substr(at_, size);
    at_ += size;
  }

  // "{2}", "{1,3}", "{,3}", "{2,}", else a literal brace. In Ruby's syntax a
  // following + repeats the whole and a ? after "{n}" makes it optional; in
  // PCRE2's they would make it possessive and lazy.
  void interval() {
    const std::size_t close = in_.find('}', at_);
    const std::string_view inside = close == std::string_view::npos
                                        ? std::string_view()
                                        : in_.substr(at_ + 1, close - at_ - 1);
    const bool repeats =
        !inside.empty() && inside != "," &&
        inside.find_first_not_of("0123456789,") == std::string_view::npos &&
        inside.find(',') == inside.rfind(',');
    if (!repeats) {
      atom([&] { out_ += "\\{"; });
      ++at_;
      return;
    }
    at_ = close + 1;
    const char next = at_ < in_.size() ? in_[at_] : '\0';
    const bool exact = inside.find(',') == std::string_view::npos;
    const bool wrap = next == '+' || next == '*' || (next == '?' && exact);
    if (wrap) out_.insert(atom_, "(?:");
    out_ += fmt::format("{{{}{}}}", inside[0] == ',' ? "0" : "", inside);
    if (wrap) out_ += ')';
  }

  void open_group() {
    groups_.push_back(out_.size());
    if (in_.substr(at_, 2) == "(*") refuse("a verb '(*'");
    if (in_.substr(at_, 2) != "(?") {
      out_ += '(';
      ++at_;
      return;
    }
    if (in_.substr(at_, 3) == "(?#") {
      const std::size_t close = in_.find(')', at_);
      if (close == std::string_view::npos) refuse("an endless comment");
      at_ = close + 1;
      groups_.pop_back();
      return;
    }
    for (const std::string_view kind :
         {"(?:", "(?=", "(?!", "(?>", "(?<=", "(?<!", "(?<"}) {
      if (in_.substr(at_, kind.size()) != kind) continue;
      out_ += kind;
      at_ += kind.size();
      return;
    }
    options();
  }

  // "(?i)" and "(?i:"; Ruby's m is everyone else's s.
  void options() {
    const std::size_t end = in_.find_first_not_of("im-", at_ + 2);
    if (end == std::string_view::npos || (in_[end] != ')' && in_[end] != ':')) {
      refuse(fmt::format("the group '{}'", in_.substr(at_, 4)));
    }
    for (; at_ <= end; ++at_) out_ += in_[at_] == 'm' ? 's' : in_[at_];
    if (in_[end] == ')') groups_.pop_back();
  }

  void close_group() {
    if (groups_.empty()) refuse("a ')' without its '('");
    atom_ = groups_.back();
    groups_.pop_back();
    out_ += ')';
    ++at_;
  }

  // Writes class members, inside of brackets of their own unless in a class.
  void members(std::string_view inside, bool in_class) {
    out_ += in_class ? std::string(inside) : fmt::format("[{}]", inside);
  }

  void escape(bool in_class = false) {
    if (at_ + 1 >= in_.size()) refuse("a backslash at its end");
    const char c = in_[at_ + 1];
    const auto shorthand = [&](std::string_view inside) {
      members(inside, in_class);
      at_ += 2;
    };
    const auto inverse = [&](std::string_view inside) {
      if (in_class) refuse(fmt::format("'\\{}' inside brackets", c));
      out_ += fmt::format("[^{}]", inside);
      at_ += 2;
    };
    switch (c) {
      case 's':
        return shorthand(kSpaceMembers);
      case 'S':
        if (in_class) return shorthand(kNotSpaceMembers);
        return inverse(kSpaceMembers);
      case 'd':
        return shorthand("\\p{Nd}" + added_members("Nd"));
      case 'D':
        return inverse("\\p{Nd}" + added_members("Nd"));
      case 'w':
        return shorthand(onig_word_members());
      case 'W':
        return inverse(onig_word_members());
      case 'h':
        return shorthand(kHexMembers);
      case 'H':
        return inverse(kHexMembers);
      case 'v':
        return shorthand("\\x{b}");
      case 'p':
      case 'P':
        return property(in_class);
      case 'u':
        return code_unit();
      case 'x':
        return hex_number();
      case 'b':
        if (in_class) return shorthand("\\x{8}");
        return word_boundary(false);
      case 'B':
        return word_boundary(true);
      default:
        return plain_escape(c, in_class);
    }
  }

  void plain_escape(char c, bool in_class) {
    const auto byte = static_cast<unsigned char>(c);
    // What both engines read alike; \A, \z, \Z, \R, \X only outside brackets.
    const bool letter = std::isalpha(byte) != 0;
    const std::string_view known = in_class ? "tnrfae" : "tnrfaeAzZRX";
    if (letter && known.find(c) == std::string_view::npos) {
      refuse(fmt::format("'\\{}'", c));
    }
    if (std::isdigit(byte) != 0 && c != '0' && in_class) {
      refuse("an octal number inside brackets");
    }
    if (byte >= 0x80) {
      ++at_;
      character();
      return;
    }
    out_ += in_.substr(at_, 2);
    at_ += 2;
  }

  // "\\x{e9}" is a code point; "\\xe9" would be a byte.
  void hex_number() {
    const bool braces = in_.substr(at_ + 2, 1) == "{";
    const std::size_t begin = at_ + (braces ? 3 : 2);
    std::size_t end = begin;
    while (end < in_.size() && end < begin + (braces ? 8 : 2) &&
           std::isxdigit(static_cast<unsigned char>(in_[end])) != 0) {
      ++end;
    }
    const std::string_view digits = in_.substr(begin, end - begin);
    if (digits.empty() || (braces && in_.substr(end, 1) != "}")) {
      refuse("'\\x' without digits");
    }
    if (!braces && digits.size() == 2 && digits[0] > '7') {
      refuse("a byte above '\\x7f'");
    }
    out_ += fmt::format("\\x{{{}}}", digits);
    at_ = end + (braces ? 1 : 0);
  }

  void code_unit() {
    const std::string_view digits = in_.substr(at_ + 2, 4);
    if (digits.size() != 4 ||
        digits.find_first_not_of("0123456789abcdefABCDEF") !=
            std::string_view::npos) {
      refuse("'\\u' without four digits");
    }
    out_ += fmt::format("\\x{{{}}}", digits);
    at_ += 6;
  }

  void word_boundary(bool inverse) {
    const std::string word = onig_word_members();
    const std::string edge =
        fmt::format("(?<=[{0}])(?![{0}])|(?<![{0}])(?=[{0}])", word);
    const std::string inside =
        fmt::format("(?<=[{0}])(?=[{0}])|(?<![{0}])(?![{0}])", word);
    out_ += fmt::format("(?:{})", inverse ? inside : edge);
    at_ += 2;
  }

  void property(bool in_class) {
    const std::size_t close = in_.find('}', at_);
    if (in_.substr(at_ + 2, 1) != "{" || close == std::string_view::npos) {
      refuse("a property without braces");
    }
    std::string_view name = in_.substr(at_ + 3, close - at_ - 3);
    bool negated = in_[at_ + 1] == 'P';
    if (name.substr(0, 1) == "^") {
      negated = !negated;
      name.remove_prefix(1);
    }
    at_ = close + 1;
    const std::string added =
        is_general_category(name) ? added_members(name) : std::string();
    if (added.empty()) {
      out_ += fmt::format("\\{}{{{}}}", negated ? 'P' : 'p', name);
    } else if (!negated) {
      members(fmt::format("\\p{{{}}}{}", name, added), in_class);
    } else if (!in_class) {
      out_ += fmt::format("[^\\p{{{}}}{}]", name, added);
    } else {
      refuse("a negated category inside brackets");
    }
  }

  void character_class() {
    out_ += in_[at_++];
    if (at_ < in_.size() && in_[at_] == '^') out_ += in_[at_++];
    bool first = true;
    for (; at_ < in_.size(); first = false) {
      const char c = in_[at_];
      if (c == ']' && !first) {
        out_ += c;
        ++at_;
        return;
      }
      if (c == ']') {
        out_ += "\\]";
        ++at_;
      } else if (c == '[') {
        refuse("a bracket inside brackets");
      } else if (in_.substr(at_, 2) == "&&") {
        refuse("an intersection '&&'");
      } else if (c == '\\') {
        escape(true);
      } else {
        character();
      }
    }
    refuse("a '[' without its ']'");
  }

  std::string_view in_;
  std::string_view subject_;
  std::string out_;
  std::size_t at_ = 0;
  std::size_t atom_ = 0;  // where the last repeatable thing starts in out_
  std::vector<std::size_t> groups_;
};

}  // namespace

std::string translate_onig(std::string_view pattern, std::string_view subject) {
  return Translator(pattern, subject).run();
}

std::string escape_regex(std::string_view literal) {
  std::string out;
  for (const char c : literal) {
    if (std::ispunct(static_cast<unsigned char>(c)) != 0) out += '\\';
    out += c;
  }
  return out;
}

}  // namespace fettle::text
