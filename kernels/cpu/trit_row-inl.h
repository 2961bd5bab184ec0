// SPDX-License-Identifier: Apache-2.0
// A row's codes to trits as bytes. Each code is one look-up, and a word's trits
// are written at once, as masks: 24 at most are not 0, wherever zeros ahead of
// them end. The zeros lie there already.
#if defined(FETTLE_KERNELS_CPU_TRIT_ROW_INL_H_) == defined(HWY_TARGET_TOGGLE)
#ifdef FETTLE_KERNELS_CPU_TRIT_ROW_INL_H_
#undef FETTLE_KERNELS_CPU_TRIT_ROW_INL_H_
#else
#define FETTLE_KERNELS_CPU_TRIT_ROW_INL_H_
#endif

#include "kernels/cpu/vec-inl.h"
#include "kernels/packed_args.h"
#include "kernels/trit_table.h"

HWY_BEFORE_NAMESPACE();
namespace fettle::kernels::HWY_NAMESPACE {

// The 24 trits of a word, and 8 zeros.
HWY_INLINE void write_trits(std::uint64_t word, std::int8_t* out) {
  const hn::CappedTag<std::int8_t, 32> d;
  HWY_ALIGN static constexpr std::int8_t kOnes[32] = {
      1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1};
  for (std::size_t i = 0; i < 32; i += hn::Lanes(d)) {
    const auto ones = hn::Load(d, kOnes + i);
    const auto marked = [&](std::uint64_t bits) HWY_ATTR {
      std::uint8_t bytes[8];
      std::memcpy(bytes, &bits, 8);
      return hn::IfThenElseZero(hn::LoadMaskBits(d, bytes), ones);
    };
    const auto plus = marked(word >> i), minus = marked(word >> (24 + i));
    hn::StoreU(hn::Sub(plus, minus), d, out + i);
  }
}

// The word that a row's next bits encode.
struct NextWord {
  std::uint64_t word;
  unsigned bits;
};

HWY_INLINE std::uint64_t word_at(const std::uint8_t* table, std::uint64_t i) {
  std::uint64_t word;
  std::memcpy(&word, table + i * kTritWordBytes, sizeof word);
  return word;
}

template <PackedKind kind>
HWY_INLINE NextWord next_word(const std::uint8_t* table, std::uint64_t bits) {
  const std::uint64_t value = bits & (kTritCodeValues - 1);
  if constexpr (kind == PackedKind::kTernaryWords) {
    return {word_at(table, value), kTritCodeBits};
  } else {
    const std::uint8_t* found =
        table + kTritHuffmanWords * kTritWordBytes + 2 * value;
    return {word_at(table, found[1]), found[0]};
  }
}

// 57 bits at least from bit `at` on, zeros behind the end of all codes.
HWY_INLINE std::uint64_t bits_from(
    const std::uint8_t* in, std::int64_t left, std::int64_t at) {
  std::uint64_t bits = 0;
  const std::int64_t byte = at / 8;
  if (byte + 8 <= left) {
    std::memcpy(&bits, in + byte, 8);
  } else if (byte < left) {
    std::memcpy(&bits, in + byte, static_cast<std::size_t>(left - byte));
  }
  return bits >> at % 8;
}

// May read codes of the rows behind a damaged one.
template <PackedKind kind>
HWY_INLINE bool coded_row(
    const PackedArgs& m,
    std::int64_t begin,
    std::int64_t end,
    std::int8_t* out) {
  constexpr int kAtOnce = 57 / kTritCodeBits;
  const std::uint8_t* in = m.codes + begin;
  std::memset(out, 0, static_cast<std::size_t>(m.cols + kBehindTrits));
  std::int64_t bit = 0, col = 0;
  while (col < m.cols) {
    std::uint64_t bits = bits_from(in, m.codes_bytes - begin, bit);
    for (int i = 0; i < kAtOnce && col < m.cols; ++i) {
      const NextWord next = next_word<kind>(m.table, bits);
      const auto trits = static_cast<std::int64_t>(next.word >> 56);
      if (trits == 0) return false;
      bits >>= next.bits;
      bit += next.bits;
      write_trits(next.word, out + col + (next.word >> 48 & 0xff));
      col += trits;
    }
  }
  return (bit + 7) / 8 == end - begin;
}

// Writes a row's trits, and up to kBehindTrits bytes behind them. False when
// its codes are damaged.
HWY_INLINE bool trit_row(
    const PackedArgs& m, std::int64_t row, std::int8_t* out) {
  const std::int64_t begin = m.row_begin[row], end = m.row_begin[row + 1];
  if (begin < 0 || begin > end || end > m.codes_bytes) return false;
  return m.kind == PackedKind::kTernaryWords
             ? coded_row<PackedKind::kTernaryWords>(m, begin, end, out)
             : coded_row<PackedKind::kTernaryHuffman>(m, begin, end, out);
}

}  // namespace fettle::kernels::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#endif
