// SPDX-License-Identifier: Apache-2.0
// The words of a coded row of trits, and what lanes find out about the row.
#pragma once

#include "kernels/gpu/row.h"
#include "kernels/trit_table.h"

namespace fettle::kernels::gpu {

struct Word {
  std::uint64_t bits;

  __device__ int trits() const { return static_cast<int>(bits >> 56); }
  // Calls f(column, +1 or −1) for the trits before column `cols`.
  template <class F>
  __device__ void each(
      std::uint32_t begin, std::uint32_t cols, const F& f) const {
    const std::uint32_t plus = bits & 0xffffff;
    std::uint32_t left = plus | (bits >> 24 & 0xffffff);
    begin += static_cast<std::uint32_t>(bits >> 48 & 0xff);
    while (left != 0) {
      const int j = __ffs(static_cast<int>(left)) - 1;
      left &= left - 1;
      if (begin + j >= cols) return;
      f(begin + j, (plus >> j & 1) != 0 ? 1.0f : -1.0f);
    }
  }
};

__device__ inline int exchanged(int v, int mask) {
  return __float_as_int(shuffle_xor(__int_as_float(v), mask));
}

// The sum over the lanes before this one; `all` is that over the warp.
__device__ inline int sum_before(int v, int& all) {
  int before = 0;
  all = v;
  for (int mask = 1; mask < warpSize; mask *= 2) {
    const int other = exchanged(all, mask);
    if ((threadIdx.x & mask) != 0) before += other;
    all += other;
  }
  return before;
}

// Collects what lanes find out about their row.
struct Ending {
  bool damaged = false, sound = false;

  // A word from column `col` on whose code ends at bit `bit` of the row's.
  __device__ void see(
      int trits,
      std::int64_t col,
      std::int64_t bit,
      std::int64_t cols,
      std::int64_t bytes) {
    if (col >= cols) return;
    if (trits == 0 || bit > 8 * bytes) {
      damaged = true;
    } else if (col + trits >= cols) {
      sound = (bit + 7) / 8 == bytes;
    }
  }
  // The same for every lane.
  __device__ bool row_is_sound() const {
    const float ended = over_warp<Max>(sound ? 1.0f : 0.0f);
    const float broken = over_warp<Max>(damaged ? 1.0f : 0.0f);
    return ended > 0.0f && broken == 0.0f;
  }
};

// Bits of a row, loaded as whole aligned words, of which any that holds a byte
// of the row is memory of the same allocation.
struct RowBits {
  const std::uint32_t* base;
  std::int64_t skipped, words;

  __device__ RowBits(const std::uint8_t* p, std::int64_t bytes) {
    const auto address = reinterpret_cast<std::uintptr_t>(p);
    base = reinterpret_cast<const std::uint32_t*>(address & ~std::uintptr_t{3});
    skipped = static_cast<std::int64_t>(address & 3);
    words = (skipped + bytes + 3) / 4;
  }
  __device__ std::uint64_t word(std::int64_t i) const {
    return i < words ? base[i] : 0;
  }
  // 64 bits, zeros behind the row's last word.
  __device__ std::uint64_t from(std::int64_t bit) const {
    const std::int64_t at = 8 * skipped + bit;
    const std::int64_t i = at / 32;
    const int shift = static_cast<int>(at % 32);
    const std::uint64_t low = word(i) | word(i + 1) << 32;
    return shift == 0 ? low : low >> shift | word(i + 2) << (64 - shift);
  }
};

}  // namespace fettle::kernels::gpu
