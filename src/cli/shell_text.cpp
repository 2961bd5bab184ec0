// SPDX-License-Identifier: Apache-2.0
#include "cli/shell_text.h"

#include <fmt/format.h>

#include <sstream>

namespace fettle::cli {
namespace {

// Characters, for columns.
std::size_t columns(std::string_view text) {
  std::size_t count = 0;
  for (const char c : text) count += (c & 0xC0) != 0x80 ? 1 : 0;
  return count;
}

}  // namespace

std::string shell_word(const std::string& word) {
  constexpr std::string_view kPlain =
      "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789"
      "_-./=:,+@%";
  if (!word.empty() && word.find_first_not_of(kPlain) == std::string::npos) {
    return word;
  }
  std::string quoted = "'";
  for (const char c : word) {
    if (c == '\'') {
      quoted += "'\\''";
    } else {
      quoted += c;
    }
  }
  return quoted + "'";
}

std::string command_line(const std::vector<std::string>& arguments) {
  std::string text = "fettle";
  for (const std::string& argument : arguments) {
    text += " " + shell_word(argument);
  }
  return text;
}

std::string command_text(
    const std::vector<std::string>& words, std::size_t indent) {
  constexpr std::size_t kBreak = 2;  // " \"
  std::string text;
  std::size_t column = indent;
  for (const std::string& word : words) {
    const std::string shown = shell_word(word);
    const std::size_t width = columns(shown);
    if (!text.empty() && column + 1 + width + kBreak > kTextWidth) {
      text += " \\\n" + std::string(indent + 4, ' ');
      column = indent + 4;
    } else if (!text.empty()) {
      text += " ";
      ++column;
    }
    text += shown;
    column += width;
  }
  return text;
}

std::string wrapped(
    std::string_view text, std::size_t indent, std::size_t begun) {
  std::istringstream words{std::string(text)};
  std::string out;
  std::size_t column = begun;
  bool first = true;
  for (std::string word; words >> word;) {
    const std::size_t width = columns(word);
    if (!first && column + 1 + width > kTextWidth) {
      out += "\n" + std::string(indent, ' ');
      column = indent;
    } else if (!first) {
      out += " ";
      ++column;
    }
    out += word;
    column += width;
    first = false;
  }
  return out;
}

std::string closing_text(const Closing& closing) {
  std::string text;
  if (!closing.report.empty()) {
    text += fmt::format("report: {}\n", closing.report.string());
  }
  if (closing.next.size() == 1) {
    text += fmt::format("next: {}\n", wrapped(closing.next.front(), 6, 6));
  } else if (!closing.next.empty()) {
    text += fmt::format("next: {}\n", command_text(closing.next, 6));
  }
  return text;
}

}  // namespace fettle::cli
