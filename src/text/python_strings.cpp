// SPDX-License-Identifier: Apache-2.0
#include "text/python_strings.h"

#include <utf8proc.h>

#include <algorithm>

#include "text/utf8.h"

namespace fettle::text {
namespace {

// str.isspace(): Unicode's White_Space and four separators of ASCII.
bool is_python_space(char32_t c) {
  return is_white_space(c) || (c >= 0x1c && c <= 0x1f);
}

std::string in_case(std::string_view text, bool first_in_title) {
  std::string result;
  for (std::size_t i = 0; i < text.size(); i += utf8_length(text[i])) {
    const auto c = static_cast<utf8proc_int32_t>(decode_at(text, i));
    const bool title = first_in_title && i == 0;
    append_utf8(
        result,
        static_cast<char32_t>(
            title ? utf8proc_totitle(c) : utf8proc_tolower(c)));
  }
  return result;
}

}  // namespace

std::size_t end_without_space(std::string_view text) {
  std::size_t end = text.size();
  while (end > 0) {
    const std::size_t last = previous_character(text, end);
    if (!is_python_space(decode_at(text, last))) break;
    end = last;
  }
  return end;
}

std::string lstripped(std::string_view text) {
  std::size_t begin = 0;
  while (begin < text.size() && is_python_space(decode_at(text, begin))) {
    begin += utf8_length(text[begin]);
  }
  return std::string(text.substr(begin));
}

std::string stripped(std::string_view text) {
  return lstripped(text.substr(0, end_without_space(text)));
}

std::string replaced(
    std::string_view text, std::string_view from, std::string_view to) {
  std::string result;
  std::size_t at = 0;
  for (std::size_t found = 0; (found = text.find(from, at)) != text.npos;
       at = found + from.size()) {
    result += text.substr(at, found - at);
    result += to;
  }
  result += text.substr(at);
  return result;
}

std::string capitalized(std::string_view text) { return in_case(text, true); }

std::string lowered(std::string_view text) { return in_case(text, false); }

std::size_t count_characters(std::string_view text) {
  return static_cast<std::size_t>(std::ranges::count_if(text, [](char c) {
    return (static_cast<unsigned char>(c) & 0xc0) != 0x80;
  }));
}

}  // namespace fettle::text
