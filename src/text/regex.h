// SPDX-License-Identifier: Apache-2.0
// A compiled PCRE2 pattern. Immutable; any number of threads may match with it,
// each with its own Matcher.
#pragma once

#include <cstddef>
#include <memory>
#include <string>
#include <string_view>

namespace fettle::text {

struct Span {
  std::size_t begin;
  std::size_t end;
};

class Regex {
 public:
  // Compiles a PCRE2 pattern (see onig_pattern.h) with UTF, UCP, MULTILINE and
  // its just-in-time compiler. Throws UserError about `subject`.
  Regex(const std::string& pattern, std::string_view subject);
  ~Regex();
  Regex(Regex&&) noexcept;
  Regex& operator=(Regex&&) noexcept;

  // Reusable scratch space of one thread.
  class Matcher {
   public:
    explicit Matcher(const Regex& regex);
    ~Matcher();
    Matcher(Matcher&&) noexcept;

    // Finds the leftmost match in well-formed `text` that starts at `from` or
    // later; lookbehind sees the text before `from`. Returns false
    // when there is none. Throws UserError when the engine gives up.
    bool find(std::string_view text, std::size_t from, Span& match);

    // What the first group of the last match matched, empty where it took no
    // part; the whole match in a pattern without groups.
    Span first_group() const;

    // Calls `visit` for every match, left to right, without overlap. An empty
    // match right behind another match is left out.
    template <typename Visit>
    void for_each(std::string_view text, Visit visit) {
      Span match{0, 0};
      std::size_t from = 0;
      std::size_t last_end = std::string_view::npos;
      while (from <= text.size() && find(text, from, match)) {
        if (match.begin == match.end) {
          if (match.end != last_end) visit(match);
          from = next_character(text, match.end);
        } else {
          visit(match);
          from = match.end;
        }
        last_end = match.end;
      }
    }

   private:
    static std::size_t next_character(std::string_view text, std::size_t at);

    struct State;
    std::unique_ptr<State> state_;
  };

 private:
  struct Code;
  std::unique_ptr<Code> code_;
};

}  // namespace fettle::text
