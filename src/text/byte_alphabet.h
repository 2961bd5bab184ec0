// SPDX-License-Identifier: Apache-2.0
// GPT-2's reversible map from bytes to printable characters (Radford et al.
// 2019, section 2.2): a byte that is a printable Latin-1 character other than a
// space stands for itself, the others become U+0100, U+0101, ... in order.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>

namespace fettle::text {

inline constexpr char32_t kByteAlphabetEnd = 0x144;  // one past the last

// The character of each byte.
constexpr std::array<char32_t, 256> make_byte_alphabet() {
  std::array<char32_t, 256> characters{};
  char32_t next = 0x100;
  for (char32_t byte = 0; byte < 256; ++byte) {
    const bool printable = (byte >= 0x21 && byte <= 0x7e) ||
                           (byte >= 0xa1 && byte <= 0xac) || byte >= 0xae;
    characters[byte] = printable ? byte : next++;
  }
  return characters;
}

inline constexpr std::array<char32_t, 256> kByteAlphabet = make_byte_alphabet();

// The byte of each character below kByteAlphabetEnd, -1 where there is none.
constexpr std::array<std::int16_t, kByteAlphabetEnd> make_alphabet_bytes() {
  std::array<std::int16_t, kByteAlphabetEnd> bytes{};
  bytes.fill(-1);
  for (std::int16_t byte = 0; byte < 256; ++byte) {
    bytes[kByteAlphabet[static_cast<std::size_t>(byte)]] = byte;
  }
  return bytes;
}

inline constexpr std::array<std::int16_t, kByteAlphabetEnd> kAlphabetBytes =
    make_alphabet_bytes();

}  // namespace fettle::text
