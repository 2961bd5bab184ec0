// SPDX-License-Identifier: Apache-2.0
// Eight neighbouring weights of a packed row, the first at a multiple of eight.
// Trits are looked up: a byte's five are ten bits of a table, two bits each.
#pragma once

#include <type_traits>

#include "kernels/gpu/packed_groups.h"
#include "kernels/gpu/row.h"

namespace fettle::kernels::gpu {

inline constexpr int kTrits = 0;  // in place of bits
inline constexpr int kTritBytes = 256;
inline constexpr std::int64_t kMostPackedCols = std::int64_t{1} << 31;
inline constexpr const char* kTooManyPackedCols =
    "a packed row has 2^31 columns or more";

template <int kBits>
inline constexpr int kCodeBits = kBits == kTrits ? 2 : kBits;

// By the block's threads, with a barrier behind.
template <int kThreads>
__device__ inline void make_trit_table(std::uint32_t (&table)[kTritBytes]) {
  for (std::uint32_t byte = threadIdx.x; byte < kTritBytes; byte += kThreads) {
    std::uint32_t rest = byte, five = 0;
#pragma unroll
    for (int j = 0; j < 4; ++j) {
      five |= rest % 3 << 2 * j;
      rest /= 3;
    }
    table[byte] = five | rest << 8;  // 3 above 242, which no packing makes
  }
  __syncthreads();
}

// Codes from the lowest bit on, those of trits in 16 bits. Nothing is read
// behind the row's end.
template <int kBits>
__device__ inline std::uint64_t eight_codes(
    const PackedArgs& m,
    std::int64_t row,
    std::uint32_t eight,
    bool aligned,
    const std::uint32_t* table) {
  const std::uint8_t* p = m.codes + row * m.row_bytes;
  if constexpr (kBits == kTrits) {
    const std::uint32_t byte = 8 * eight / 5, skipped = 8 * eight % 5;
    const auto bytes = static_cast<std::uint32_t>(m.row_bytes);
    std::uint32_t codes = table[p[byte]];
    if (byte + 1 < bytes) codes |= table[p[byte + 1]] << 10;
    if (byte + 2 < bytes) codes |= table[p[byte + 2]] << 20;
    return codes >> 2 * skipped & 0xffff;
  } else {
    p += std::int64_t{eight} * kBits;
    if constexpr (kBits != 3) {
      using Word = std::conditional_t<
          kBits == 2,
          std::uint16_t,
          std::conditional_t<kBits == 4, std::uint32_t, std::uint64_t>>;
      if (aligned) return *reinterpret_cast<const Word*>(p);
    }
    std::uint64_t codes = 0;
#pragma unroll
    for (int i = 0; i < kBits; ++i) codes |= std::uint64_t{p[i]} << 8 * i;
    return codes;
  }
}

// A code less its zero, exactly: the bits of 2^23 plus a number are those of
// both.
__device__ inline float less_zero(std::uint32_t code, float zero) {
  return __uint_as_float(code | 0x4b000000u) - (8388608.0f + zero);
}

template <int kBits>
__device__ inline float code_less_zero(std::uint64_t codes, int j, float zero) {
  constexpr std::uint32_t kMask = (1u << kCodeBits<kBits>)-1;
  // Words of 32 bits, and none of 64, where j is known.
  const auto low = static_cast<std::uint32_t>(codes);
  const auto high = static_cast<std::uint32_t>(codes >> 32);
  const std::uint32_t shifted =
      kBits == 8 ? (j < 4 ? low >> 8 * j : high >> 8 * (j - 4))
                 : low >> kCodeBits<kBits> * j;
  return less_zero(shifted & kMask, zero);
}

// All of one group.
template <int kBits>
__device__ inline void eight_weights(
    float scale, float zero, std::uint64_t codes, float (&out)[8]) {
#pragma unroll
  for (int j = 0; j < 8; ++j) {
    out[j] = code_less_zero<kBits>(codes, j, zero) * scale;
  }
}

// Of any groups.
template <int kBits>
__device__ inline void eight_weights(
    const PackedArgs& m,
    const Groups& groups,
    std::int64_t row,
    std::uint32_t eight,
    std::uint64_t codes,
    float (&out)[8]) {
  const std::uint32_t col = 8 * eight;
  const auto size = static_cast<std::uint32_t>(groups.size);
  std::uint32_t group = groups.of(col);
  std::uint32_t next = (group + 1) * size;
  const std::int64_t first = row * m.groups;
  float scale = scale_at(m, first + group);
  float zero = zero_at<kBits>(m, first + group);
#pragma unroll
  for (int j = 0; j < 8; ++j) {
    if (col + j == next && next < m.cols) {
      ++group;
      next += size;
      scale = scale_at(m, first + group);
      zero = zero_at<kBits>(m, first + group);
    }
    out[j] = code_less_zero<kBits>(codes, j, zero) * scale;
  }
}

}  // namespace fettle::kernels::gpu
