// SPDX-License-Identifier: Apache-2.0
// Commands as people type and copy them, and what a command says at its end.
#pragma once

#include <filesystem>
#include <string>
#include <string_view>
#include <vector>

namespace fettle::cli {

// Columns that all text for people keeps to.
inline constexpr std::size_t kTextWidth = 100;

// `word` as a shell reads it back: quoted where it must be.
std::string shell_word(const std::string& word);

// "fettle" and its arguments on one line, as a shell reads them back.
std::string command_line(const std::vector<std::string>& arguments);

// The words of a command, joined so that a shell reads them back, broken by
// backslashes at kTextWidth columns. The first line comes after `indent`
// columns that the caller has written, others behind as many and four spaces.
std::string command_text(
    const std::vector<std::string>& words, std::size_t indent);

// `text` in lines of kTextWidth columns, broken at spaces, each behind `indent`
// spaces but the first, which the caller has begun with `begun` columns.
std::string wrapped(
    std::string_view text, std::size_t indent, std::size_t begun);

struct Closing {
  std::filesystem::path report = {};  // empty: none
  // Commands to run, program name first; or, of one word, a sentence.
  std::vector<std::string> next = {};
};

// "report: scores/report.html" and "next: fettle trim ...", a line each.
std::string closing_text(const Closing& closing);

}  // namespace fettle::cli
