// SPDX-License-Identifier: Apache-2.0
#include "text/utf8.h"

#include <algorithm>
#include <cstdint>
#include <cstring>

namespace fettle::text {
namespace {

// What follows position `at`: `size` bytes that are one well-formed character,
// or one maximal part of an ill-formed one.
struct Part {
  std::size_t size;
  bool valid;
};

Part part_at(std::string_view text, std::size_t at) {
  const auto byte = [&](std::size_t i) {
    return static_cast<unsigned char>(text[at + i]);
  };
  const unsigned lead = byte(0);
  if (lead < 0x80) return {1, true};
  if (lead < 0xc2 || lead > 0xf4) return {1, false};
  const std::size_t wanted = lead < 0xe0 ? 2 : lead < 0xf0 ? 3 : 4;
  // The second byte's range rules out overlong forms, surrogates and code
  // points above U+10FFFF.
  unsigned low = 0x80;
  unsigned high = 0xbf;
  if (lead == 0xe0) low = 0xa0;
  if (lead == 0xed) high = 0x9f;
  if (lead == 0xf0) low = 0x90;
  if (lead == 0xf4) high = 0x8f;
  std::size_t size = 1;
  while (size < wanted && at + size < text.size() && byte(size) >= low &&
         byte(size) <= high) {
    ++size;
    low = 0x80;
    high = 0xbf;
  }
  return {size, size == wanted};
}

// Bytes at the start of `text` from `at` on that are ASCII, in steps of eight.
std::size_t skip_ascii(std::string_view text, std::size_t at) {
  while (at + 8 <= text.size()) {
    std::uint64_t word = 0;
    std::memcpy(&word, text.data() + at, 8);
    if ((word & 0x8080808080808080u) != 0) break;
    at += 8;
  }
  while (at < text.size() && static_cast<unsigned char>(text[at]) < 0x80) ++at;
  return at;
}

}  // namespace

std::string repair_utf8(std::string_view bytes) {
  std::string out;
  out.reserve(bytes.size());
  std::size_t copied = 0;
  std::size_t at = 0;
  while (at < bytes.size()) {
    at = skip_ascii(bytes, at);
    if (at == bytes.size()) break;
    const Part part = part_at(bytes, at);
    if (!part.valid) {
      out.append(bytes.substr(copied, at - copied));
      out.append("\xef\xbf\xbd");
      copied = at + part.size;
    }
    at += part.size;
  }
  out.append(bytes.substr(copied));
  return out;
}

bool is_utf8(std::string_view bytes) {
  std::size_t at = 0;
  while ((at = skip_ascii(bytes, at)) < bytes.size()) {
    const Part part = part_at(bytes, at);
    if (!part.valid) return false;
    at += part.size;
  }
  return true;
}

char32_t decode_at(std::string_view text, std::size_t position) {
  const auto byte = [&](std::size_t i) -> char32_t {
    return static_cast<unsigned char>(text[position + i]);
  };
  const auto tail = [&](std::size_t i) { return byte(i) & 0x3f; };
  switch (utf8_length(text[position])) {
    case 1:
      return byte(0);
    case 2:
      return (byte(0) & 0x1f) << 6 | tail(1);
    case 3:
      return (byte(0) & 0x0f) << 12 | tail(1) << 6 | tail(2);
    default:
      return (byte(0) & 0x07) << 18 | tail(1) << 12 | tail(2) << 6 | tail(3);
  }
}

std::size_t previous_character(std::string_view text, std::size_t end) {
  std::size_t at = end - 1;
  while ((static_cast<unsigned char>(text[at]) & 0xc0) == 0x80) --at;
  return at;
}

void append_utf8(std::string& out, char32_t code_point) {
  const auto put = [&](char32_t byte) { out += static_cast<char>(byte); };
  if (code_point < 0x80) {
    put(code_point);
  } else if (code_point < 0x800) {
    put(0xc0 | code_point >> 6);
    put(0x80 | (code_point & 0x3f));
  } else if (code_point < 0x10000) {
    put(0xe0 | code_point >> 12);
    put(0x80 | (code_point >> 6 & 0x3f));
    put(0x80 | (code_point & 0x3f));
  } else {
    put(0xf0 | code_point >> 18);
    put(0x80 | (code_point >> 12 & 0x3f));
    put(0x80 | (code_point >> 6 & 0x3f));
    put(0x80 | (code_point & 0x3f));
  }
}

bool is_white_space(char32_t c) {
  return (c >= 0x09 && c <= 0x0d) || c == 0x20 || c == 0x85 || c == 0xa0 ||
         c == 0x1680 || (c >= 0x2000 && c <= 0x200a) || c == 0x2028 ||
         c == 0x2029 || c == 0x202f || c == 0x205f || c == 0x3000;
}

}  // namespace fettle::text
