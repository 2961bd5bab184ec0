// SPDX-License-Identifier: Apache-2.0
// A warp reads a coded row of trits, each of its lanes a word: their lengths,
// summed over the lanes before, say where in the row it lies. Where codes have
// no fixed length all lanes read them in their order, as many at once as ten
// bits hold, each keeping its own.
#pragma once

#include "kernels/gpu/trit_next_codes.h"
#include "kernels/gpu/trit_words.h"
#include "kernels/packed_args.h"

namespace fettle::kernels::gpu {

inline constexpr int kTritThreads = 256;

// Both call f(column, word) with the words of a row, a lane one at a time, and
// return whether the row is sound, the same to every lane. `table` is what
// load_table has made in shared memory.
struct FixedCode {
  static constexpr int kEntries = kTritCodeWords;

  static __device__ void load_table(
      const std::uint64_t* from, std::uint64_t* table) {
    for (int i = threadIdx.x; i < kEntries; i += kTritThreads) {
      table[i] = from[i];
    }
  }

  template <class F>
  static __device__ bool row(
      const std::uint64_t* table,
      const std::uint8_t* codes,
      std::int64_t bytes,
      std::int64_t cols,
      const F& f) {
    const std::int64_t count = 8 * bytes / kTritCodeBits;
    const int lane = threadIdx.x % warpSize;
    Ending ending;
    std::int64_t col = 0;
    for (std::int64_t i = lane; i - lane < count && col < cols; i += warpSize) {
      Word word{0};
      const std::int64_t bit = i * kTritCodeBits;
      if (i < count) {
        const std::uint8_t* p = codes + bit / 8;
        const unsigned code = (p[0] | p[1] << 8) >> bit % 8;
        word.bits = table[code & (kTritCodeValues - 1)];
      }
      int all;
      const std::int64_t at = col + sum_before(word.trits(), all);
      ending.see(word.trits(), at, bit + kTritCodeBits, cols, bytes);
      if (at < cols) f(at, word);
      col += all;
    }
    return ending.row_is_sound();
  }
};

struct HuffmanCode {
  static constexpr int kEntries = kTritHuffmanWords + kTritCodeValues;
  static constexpr int kSteps = 4;  // with the same 64 bits

  static __device__ void load_table(
      const std::uint64_t* from, std::uint64_t* table) {
    const auto* found =
        reinterpret_cast<const std::uint16_t*>(from + kTritHuffmanWords);
    for (int i = threadIdx.x; i < kEntries; i += kTritThreads) {
      const int value = i - kTritHuffmanWords;
      table[i] = value < 0 ? from[i] : NextCodes(value, found).both();
    }
  }

  template <class F>
  static __device__ bool row(
      const std::uint64_t* table,
      const std::uint8_t* codes,
      std::int64_t bytes,
      std::int64_t cols,
      const F& f) {
    const RowBits bits(codes, bytes);
    const int lane = threadIdx.x % warpSize;
    Ending ending;
    std::int64_t col = 0, bit = 0;
    while (bit < 8 * bytes && col < cols) {
      NextCodes mine(0);
      int read = 0, passed = 0, begin = 0, which = 0;
      while (read <= warpSize - kSteps * NextCodes::kMost) {
        std::uint64_t next = bits.from(bit + passed);
#pragma unroll
        for (int j = 0; j < kSteps; ++j) {
          const NextCodes some(
              table[kTritHuffmanWords + (next & (kTritCodeValues - 1))]);
          if (lane >= read && lane < read + some.count()) {
            mine = some;
            begin = passed;
            which = lane - read;
          }
          next >>= some.bits();
          passed += some.bits();
          read += some.count();
        }
      }
      const Word word{lane < read ? table[mine.number(which)] : 0};
      const std::int64_t end = bit + begin + mine.end(which);
      bit += passed;
      int all;
      const std::int64_t at = col + sum_before(word.trits(), all);
      if (lane < read) ending.see(word.trits(), at, end, cols, bytes);
      if (lane < read && at < cols) f(at, word);
      if (all == 0) break;
      col += all;
    }
    return ending.row_is_sound();
  }
};

template <class Code, class F>
__device__ bool each_word(
    const PackedArgs& m,
    std::int64_t row,
    const std::uint64_t* table,
    const F& f) {
  const std::int64_t begin = m.row_begin[row], end = m.row_begin[row + 1];
  if (begin < 0 || begin > end || end > m.codes_bytes) return false;
  if (m.cols == 0) return begin == end;
  return Code::row(table, m.codes + begin, end - begin, m.cols, f);
}

template <class Code>
__device__ void load_table(const PackedArgs& m, std::uint64_t* table) {
  Code::load_table(reinterpret_cast<const std::uint64_t*>(m.table), table);
  __syncthreads();
}

}  // namespace fettle::kernels::gpu
