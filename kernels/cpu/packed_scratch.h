// SPDX-License-Identifier: Apache-2.0
// What unpacking a row takes: room for its codes, and the trits of a byte.
#pragma once

#include <cstdint>
#include <memory>

namespace fettle::kernels::cpu {

// A vector of 64 bytes holds 256 codes of 2 bits, and may begin at the last.
inline constexpr std::int64_t kBehindCodes = 256;

using CodesMemory = std::unique_ptr<std::int8_t[]>;

inline CodesMemory memory_for_codes(std::int64_t cols, std::int64_t rows = 1) {
  return std::make_unique_for_overwrite<std::int8_t[]>(
      static_cast<std::size_t>(rows * (cols + kBehindCodes)));
}

// Five trits and three bytes that the next five will overwrite. Bytes above
// 242, which no packing makes, have 2 as their last trit. No std::array: its
// code would be shared between instruction sets.
struct Trits {
  std::int8_t trits[8];
};

struct TritsOfBytes {
  Trits of[256] = {};

  constexpr TritsOfBytes() {
    for (int byte = 0; byte < 256; ++byte) {
      int rest = byte;
      for (int i = 0; i < 5; ++i) {
        const int code = i < 4 ? rest % 3 : rest;
        of[byte].trits[i] = static_cast<std::int8_t>(code - 1);
        rest /= 3;
      }
    }
  }
};

inline constexpr TritsOfBytes kTritsOfBytes;

}  // namespace fettle::kernels::cpu
