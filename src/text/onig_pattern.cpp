// SPDX-License-Identifier: Apache-2.0
#include "text/onig_pattern.h"

#include <fmt/format.h>

#include <cctype>
#include <cstddef>
#include <vector>

#include "core/error.h"
#include "text/case_folds.h"
#include "text/character_sets.h"
#include "text/onig_class.h"
#include "text/onig_sets.h"
#include "text/utf8.h"

namespace fettle::text {
namespace {

class Translator {
 public:
  Translator(std::string_view pattern, std::string_view subject)
      : in_(pattern),
        subject_(subject),
        refuse_([this](std::string_view what) { refuse(what); }) {}

  std::string run() {
    groups_.push_back({0, 0, {}});
    while (at_ < in_.size()) {
      switch (in_[at_]) {
        case '\\':
          escape();
          break;
        case '[':
          atom([&] {
            out_ += read_class(in_, at_, {flags_.ignore_case}, refuse_);
          });
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
          out_ += in_[at_++];
          break;
        case '|':
        case '^':
        case '$':
        case '.':
          atom([&] { out_ += in_[at_++]; });
          break;
        default: {
          const char32_t c = decode_at(in_, at_);
          at_ += utf8_length(in_[at_]);
          literal(c);
        }
      }
    }
    if (groups_.size() > 1) refuse("a '(' without its ')'");
    return out_ + std::string(groups_[0].isolated, ')');
  }

 private:
  struct Flags {
    bool ignore_case = false;
  };

  struct Group {
    std::size_t begin = 0;     // in out_
    std::size_t isolated = 0;  // groups that "(?i)" opened in it
    Flags outside;
  };

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

  // What is no literal: letters on its two sides are not one run.
  template <typename Emit>
  void atom(Emit emit) {
    atom_ = out_.size();
    folded_.clear();
    emit();
  }

  // Case is ignored by naming every variant, since PCRE2 and Oniguruma differ
  // in what they count as one. Letters that another one folds to ("ss" of "ß")
  // match it too, which has no translation.
  void literal(char32_t c) {
    atom_ = out_.size();
    if (!flags_.ignore_case) {
      folded_.clear();
      out_ += character_text(c);
      return;
    }
    const std::u32string fold = case_fold(c);
    folded_ += fold;
    if (fold.size() > 1 || ends_in_long_fold(folded_)) {
      std::string text;
      for (const char32_t f : folded_) append_utf8(text, f);
      refuse(fmt::format(
          "'{}' under (?i), whose end is one letter in another case", text));
    }
    const std::vector<char32_t> variants = case_variants(c);
    if (variants.size() > 1) out_ += '[';
    for (const char32_t variant : variants) out_ += character_text(variant);
    if (variants.size() > 1) out_ += ']';
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
      literal('{');
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
    if (in_.substr(at_, 2) == "(*") refuse("a verb '(*'");
    if (in_.substr(at_, 3) == "(?#") {
      const std::size_t close = in_.find(')', at_);
      if (close == std::string_view::npos) refuse("an endless comment");
      at_ = close + 1;
      return;
    }
    if (in_.substr(at_, 2) != "(?") return open("(");
    for (const std::string_view kind :
         {"(?:", "(?=", "(?!", "(?>", "(?<=", "(?<!"}) {
      if (in_.substr(at_, kind.size()) == kind) return open(kind);
    }
    if (in_.substr(at_, 3) == "(?<") {
      named_ = true;
      return open("(?<");
    }
    options();
  }

  void open(std::string_view text) {
    groups_.push_back({out_.size(), 0, flags_});
    out_ += text;
    at_ += text.size();
  }

  // "(?i)" and "(?i:". Ruby's m is everyone else's s. What follows "(?i)" up to
  // the end of the group around it is a group of its own: "a(?i)b|c" is
  // "a(?i:b|c)".
  void options() {
    const std::size_t end = in_.find_first_not_of("im-", at_ + 2);
    if (end == std::string_view::npos || (in_[end] != ')' && in_[end] != ':')) {
      refuse(fmt::format("the group '{}'", in_.substr(at_, 4)));
    }
    Flags flags = flags_;
    std::string dot;
    bool on = true;
    for (const char c : in_.substr(at_ + 2, end - at_ - 2)) {
      if (c == '-') on = false;
      if (c == 'i') flags.ignore_case = on;
      if (c == 'm') dot = on ? "s" : "-s";
    }
    if (in_[end] == ':') {
      groups_.push_back({out_.size(), 0, flags_});
    } else {
      ++groups_.back().isolated;
    }
    out_ += fmt::format("(?{}:", dot);
    flags_ = flags;
    at_ = end + 1;
  }

  void close_group() {
    if (groups_.size() < 2) refuse("a ')' without its '('");
    const Group group = groups_.back();
    groups_.pop_back();
    out_ += std::string(group.isolated + 1, ')');
    atom_ = group.begin;
    flags_ = group.outside;
    ++at_;
  }

  void escape() {
    if (at_ + 1 >= in_.size()) refuse("a backslash at its end");
    const char c = in_[at_ + 1];
    if (c == 'p' || c == 'P') {
      atom([&] { out_ += read_property(in_, at_, false, refuse_); });
      return;
    }
    if (c == 'b' || c == 'B') return atom([&] { word_boundary(c == 'B'); });
    const auto byte = static_cast<unsigned char>(c);
    if (const auto set = shorthand_set(static_cast<char>(std::tolower(byte)))) {
      atom([&] { out_ += set->pattern(std::isupper(byte) != 0); });
      at_ += 2;
      return;
    }
    if (const auto read = read_escaped_character(in_, at_, false, refuse_)) {
      return literal(*read);
    }
    if (std::isdigit(byte) != 0) return reference();
    // What both engines read alike.
    if (std::string_view("AzZR").find(c) == std::string_view::npos) {
      refuse(fmt::format("'\\{}'", c));
    }
    atom([&] { out_ += in_.substr(at_, 2); });
    at_ += 2;
  }

  void reference() {
    const bool one_digit =
        at_ + 2 >= in_.size() ||
        std::isdigit(static_cast<unsigned char>(in_[at_ + 2])) == 0;
    if (in_[at_ + 1] == '0' || !one_digit) refuse("an octal number");
    if (flags_.ignore_case) refuse("a reference to a group under (?i)");
    if (named_) refuse("a number of a group beside names");
    atom([&] { out_ += in_.substr(at_, 2); });
    at_ += 2;
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

  std::string_view in_;
  std::string_view subject_;
  RefuseConstruct refuse_;
  std::string out_;
  std::size_t at_ = 0;
  std::size_t atom_ = 0;  // where the last repeatable thing starts in out_
  std::vector<Group> groups_;
  Flags flags_;
  bool named_ = false;     // some group has a name
  std::u32string folded_;  // the letters that end out_ under (?i), folded
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
