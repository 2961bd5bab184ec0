// SPDX-License-Identifier: Apache-2.0
// Several Huffman codes of trits looked up at once, which halves the steps of
// reading a row: each step waits for the one before.
#pragma once

#include "kernels/gpu/values.h"
#include "kernels/trit_table.h"

namespace fettle::kernels::gpu {

// The codes that the next ten bits hold wholly, at most three, at least one.
struct NextCodes {
  std::uint32_t numbers = 0;  // of the words, eight bits each
  // Four bits each: where the codes end, from bit 0; all of them, from bit 12;
  // their count, from bit 16.
  std::uint32_t ends = 0;

  static constexpr int kMost = 3;

  __device__ explicit NextCodes(std::uint64_t both)
      : numbers(static_cast<std::uint32_t>(both >> 32)),
        ends(static_cast<std::uint32_t>(both)) {}
  // `found`: a code's length and number for every value of the next ten bits.
  __device__ NextCodes(unsigned value, const std::uint16_t* found) {
    int count = 0, end = 0;
    do {
      const unsigned entry = found[value >> end];
      const int length = static_cast<int>(entry & 0xf);
      if (count > 0 && (length == 0 || end + length > kTritCodeBits)) break;
      end += length;
      numbers |= entry >> 8 << 8 * count;
      ends |= static_cast<std::uint32_t>(end) << 4 * count;
      ++count;
    } while (count < kMost && end < kTritCodeBits);
    ends |= static_cast<std::uint32_t>(end | count << 4) << 12;
  }

  __device__ std::uint64_t both() const {
    return static_cast<std::uint64_t>(numbers) << 32 | ends;
  }
  __device__ int count() const { return static_cast<int>(ends >> 16); }
  __device__ int bits() const { return static_cast<int>(ends >> 12 & 0xf); }
  __device__ int end(int i) const {
    return static_cast<int>(ends >> 4 * i & 0xf);
  }
  __device__ unsigned number(int i) const { return numbers >> 8 * i & 0xff; }
};

}  // namespace fettle::kernels::gpu
