// SPDX-License-Identifier: Apache-2.0
// A strip is what a lane takes of a packed row at once, and a quad four
// neighbouring codes of it. A code becomes a float by one instruction that
// masks all bits but its own: the float is small, code x 2^(place - 149), below
// or just above the smallest normal one. x is stored multiplied by
// 2^(64 - place), which is exact, so that a product is code x 2^-85.
#pragma once

#include "kernels/gpu/packed_eight.h"

namespace fettle::kernels::gpu {

// Columns of a strip; a row and its groups are whole strips.
template <int kBits>
inline constexpr int kStripCols = kBits == kTrits ? 64
                                  : kBits == 8    ? 16
                                                  : 32;
// A strip of trits begins within a byte: it has room for those before.
template <int kBits>
inline constexpr int kStripCodes = kBits == kTrits ? 72 : kStripCols<kBits>;
template <int kBits>
inline constexpr int kStripQuads = kStripCodes<kBits> / 4;
template <int kBits>
inline constexpr int kStripWords =
    kBits == kTrits ? 4 : kStripCols<kBits> * kBits / 32;

template <int kBits>
struct Strip {
  std::uint32_t words[kStripWords<kBits>];
};

// How many codes of the strip's first byte are of the strip before.
template <int kBits>
__device__ inline int strip_skips(std::uint32_t strip) {
  return kBits == kTrits ? static_cast<int>(4 * strip % 5) : 0;
}

__device__ inline float power_of_two(int exponent) {
  return __uint_as_float(static_cast<std::uint32_t>(127 + exponent) << 23);
}

// The lowest bit of code `i` of a strip where strip_code leaves it.
template <int kBits>
__device__ inline int code_place(int i) {
  if (kBits == kTrits) return 2 * (i % 5);
  if (kBits == 2) return 2 * (i % 16 % 12);
  if (kBits == 3) return 3 * (i % 8);
  if (kBits == 4) return 4 * (i % 4);
  return 8 * (i % 4 % 3);
}

// Floats are linear in their bits up to bit 23, so that is where codes may be;
// those above are shifted.
template <int kBits>
__device__ inline float strip_code(
    const Strip<kBits>& strip, int i, const std::uint32_t* table) {
  const auto& w = strip.words;
  std::uint32_t bits = 0;
  if constexpr (kBits == kTrits) {
    bits = table[w[i / 20] >> 8 * (i / 5 % 4) & 0xff];
  } else if constexpr (kBits == 2) {
    bits = i % 16 < 12 ? w[i / 16] : w[i / 16] >> 24;
  } else if constexpr (kBits == 3) {
    const int at = i / 8;  // 24 bits each
    bits = at == 0   ? w[0]
           : at == 1 ? w[0] >> 24 | w[1] << 8
           : at == 2 ? w[1] >> 16 | w[2] << 16
                     : w[2] >> 8;
  } else if constexpr (kBits == 4) {
    bits = i % 8 < 4 ? w[i / 8] : w[i / 8] >> 16;
  } else {
    bits = i % 4 < 3 ? w[i / 4] : w[i / 4] >> 24;
  }
  constexpr std::uint32_t kMask = (1u << kCodeBits<kBits>)-1;
  return __uint_as_float(bits & kMask << code_place<kBits>(i));
}

// Sixteen bytes from anywhere; zeros outside of [begin, end).
__device__ inline void load_unaligned(
    const std::uint8_t* p,
    const std::uint8_t* begin,
    const std::uint8_t* end,
    std::uint32_t (&out)[4]) {
  const auto skipped =
      static_cast<int>(reinterpret_cast<std::uintptr_t>(p) & 3);
  const std::uint8_t* from = p - skipped;
  if (from >= begin && from + 20 <= end) {
    const auto* words = reinterpret_cast<const std::uint32_t*>(from);
    std::uint32_t loaded[5];
#pragma unroll
    for (int i = 0; i < 5; ++i) loaded[i] = words[i];
#pragma unroll
    for (int i = 0; i < 4; ++i) {
      const std::uint64_t both =
          loaded[i] | static_cast<std::uint64_t>(loaded[i + 1]) << 32;
      out[i] = static_cast<std::uint32_t>(both >> 8 * skipped);
    }
  } else {
#pragma unroll
    for (int i = 0; i < 4; ++i) {
      out[i] = 0;
      for (int j = 0; j < 4; ++j) {
        const std::uint8_t* byte = p + 4 * i + j;
        if (byte < end) out[i] |= std::uint32_t{*byte} << 8 * j;
      }
    }
  }
}

// Of the row that begins at `p`, at 16 bytes except where codes are trits.
template <int kBits>
__device__ inline Strip<kBits> load_strip(
    const PackedArgs& m, const std::uint8_t* p, std::uint32_t strip) {
  constexpr int kWords = kStripWords<kBits>;
  constexpr int kLoaded = kWords % 2 == 0 ? kWords : 1;
  Strip<kBits> out;
  if constexpr (kBits == kTrits) {
    p += kStripCols<kBits> * strip / 5;
    load_unaligned(p, m.codes, m.codes + m.codes_bytes, out.words);
  } else {
    p += std::size_t{4 * kWords} * strip;
    // Whole packs, since parts of them would be loaded one by one.
#pragma unroll
    for (int i = 0; i < kWords; i += kLoaded) {
      const auto pack =
          *reinterpret_cast<const Pack<std::uint32_t, kLoaded>*>(p + 4 * i);
#pragma unroll
      for (int j = 0; j < kLoaded; ++j) out.words[i + j] = pack.values[j];
    }
  }
  return out;
}

}  // namespace fettle::kernels::gpu
