// SPDX-License-Identifier: Apache-2.0
#include "core/one_line.h"

#include <fmt/format.h>

#include <algorithm>

namespace fettle {
namespace {

constexpr std::size_t kLongestNumber = 24;  // digits

bool is_digit(char c) { return c >= '0' && c <= '9'; }

// A longer number is its first digits and how many there are.
std::string shorten_numbers(std::string_view text) {
  std::string result;
  while (!text.empty()) {
    std::size_t digits = 0;
    while (digits < text.size() && is_digit(text[digits])) ++digits;
    if (digits > kLongestNumber) {
      result += fmt::format("{}...({} digits)", text.substr(0, 8), digits);
    } else {
      result += text.substr(0, std::max<std::size_t>(digits, 1));
    }
    text.remove_prefix(std::max<std::size_t>(digits, 1));
  }
  return result;
}

}  // namespace

std::string one_line(std::string_view text) {
  std::string result = shorten_numbers(text);
  for (char& c : result) {
    if (static_cast<unsigned char>(c) < 0x20 || c == 0x7f) c = '?';
  }
  return result;
}

}  // namespace fettle
