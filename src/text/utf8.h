// SPDX-License-Identifier: Apache-2.0
// UTF-8 at the level of code points. Everything behind repair_utf8() may rely
// on well-formed text.
#pragma once

#include <cstddef>
#include <string>
#include <string_view>

namespace fettle::text {

// Copies `bytes`, each maximal ill-formed part replaced by U+FFFD: Unicode
// 15.0 section 3.9, table 3-8; the same as Python's
// bytes.decode("utf-8", errors="replace").
std::string repair_utf8(std::string_view bytes);

// Whether `bytes` is well-formed UTF-8.
bool is_utf8(std::string_view bytes);

// Bytes of the character that begins with `lead`; `lead` starts a well-formed
// sequence.
inline std::size_t utf8_length(char lead) {
  const auto byte = static_cast<unsigned char>(lead);
  return byte < 0x80 ? 1 : byte < 0xe0 ? 2 : byte < 0xf0 ? 3 : 4;
}

// The code point that starts at `position` of well-formed `text`.
char32_t decode_at(std::string_view text, std::size_t position);

// The position of the character that ends at `end` (> 0) of well-formed text.
std::size_t previous_character(std::string_view text, std::size_t end);

void append_utf8(std::string& out, char32_t code_point);

// Unicode's White_Space property.
bool is_white_space(char32_t code_point);

}  // namespace fettle::text
