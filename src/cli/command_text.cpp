// SPDX-License-Identifier: Apache-2.0
#include "cli/command_text.h"

#include <string_view>

namespace fettle::cli {
namespace {

std::string quoted(const std::string& word) {
  constexpr std::string_view kPlain =
      "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789"
      "_-+=:,./@%";
  if (!word.empty() && word.find_first_not_of(kPlain) == std::string::npos) {
    return word;
  }
  std::string text = "'";
  for (const char c : word) {
    text += c == '\'' ? std::string("'\\''") : std::string(1, c);
  }
  return text + "'";
}

}  // namespace

std::string command_text(std::span<const std::string> arguments) {
  std::string text = "fettle";
  for (const std::string& argument : arguments) {
    text += " " + quoted(argument);
  }
  return text;
}

}  // namespace fettle::cli
