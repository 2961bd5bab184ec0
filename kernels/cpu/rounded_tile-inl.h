// SPDX-License-Identifier: Apache-2.0
// Packed bytes of as many rows as a vector has lanes, a row a lane.
#if defined(FETTLE_KERNELS_CPU_ROUNDED_TILE_INL_H_) == \
    defined(HWY_TARGET_TOGGLE)
#ifdef FETTLE_KERNELS_CPU_ROUNDED_TILE_INL_H_
#undef FETTLE_KERNELS_CPU_ROUNDED_TILE_INL_H_
#else
#define FETTLE_KERNELS_CPU_ROUNDED_TILE_INL_H_
#endif

#include "kernels/cpu/rounded_dots-inl.h"

HWY_BEFORE_NAMESPACE();
namespace fettle::kernels::HWY_NAMESPACE {

#if HWY_TARGET != HWY_SCALAR
// Sixteen bytes of the rows i, i + 4, i + 8, ..., one a block.
HWY_INLINE Words4
gather_rows_of(const std::uint8_t* const* rows, std::int64_t at) {
  const hn::FixedTag<std::uint32_t, 4> d;
  const auto sixteen = [&](int row) HWY_ATTR {
    return hn::LoadU(d, reinterpret_cast<const std::uint32_t*>(rows[row] + at));
  };
#if HWY_MAX_BYTES >= 64 && HWY_CAP_GE512
  const hn::FixedTag<std::uint32_t, 8> two;
  return hn::Combine(
      Word(),
      hn::Combine(two, sixteen(12), sixteen(8)),
      hn::Combine(two, sixteen(4), sixteen(0)));
#elif HWY_CAP_GE256
  return hn::Combine(Word(), sixteen(4), sixteen(0));
#else
  return sixteen(0);
#endif
}
#endif

// Four words at byte `at` of each row to words [4, lanes], `bias` added to each
// byte.
HWY_INLINE void turn_words(
    const std::uint8_t* const* rows,
    std::int64_t at,
    std::uint8_t bias,
    std::uint32_t* out) {
  const Word d;
  const std::size_t lanes = hn::Lanes(d);
#if HWY_TARGET == HWY_SCALAR
  for (std::size_t lane = 0; lane < lanes; ++lane) {
    for (std::size_t w = 0; w < 4; ++w) {
      std::uint8_t bytes[4];
      std::memcpy(bytes, rows[lane] + at + 4 * w, 4);
      for (std::uint8_t& byte : bytes) byte += bias;
      std::memcpy(out + w * lanes + lane, bytes, 4);
    }
  }
#else
  const hn::Repartition<std::uint64_t, Word> wide;
  const hn::Repartition<std::uint8_t, Word> bytes;
  const auto a = gather_rows_of(rows, at), b = gather_rows_of(rows + 1, at);
  const auto c = gather_rows_of(rows + 2, at), e = gather_rows_of(rows + 3, at);
  const auto ab = hn::BitCast(wide, hn::InterleaveLower(d, a, b));
  const auto ce = hn::BitCast(wide, hn::InterleaveLower(d, c, e));
  const auto ab2 = hn::BitCast(wide, hn::InterleaveUpper(d, a, b));
  const auto ce2 = hn::BitCast(wide, hn::InterleaveUpper(d, c, e));
  const auto put = [&](std::size_t w, auto words) HWY_ATTR {
    const auto sum = hn::Add(hn::BitCast(bytes, words), hn::Set(bytes, bias));
    hn::StoreU(hn::BitCast(d, sum), d, out + w * lanes);
  };
  put(0, hn::InterleaveLower(wide, ab, ce));
  put(1, hn::InterleaveUpper(wide, ab, ce));
  put(2, hn::InterleaveLower(wide, ab2, ce2));
  put(3, hn::InterleaveUpper(wide, ab2, ce2));
#endif
}

// Bytes of five trits each, [words, lanes], to a word of each trit: 0 to 2 as
// packed, the first of a byte first. [5 words, lanes]
HWY_INLINE void take_trits_apart(
    const std::uint32_t* in, std::int64_t words, std::uint32_t* out) {
#if HWY_TARGET == HWY_SCALAR
  for (std::int64_t w = 0; w < words; ++w) {
    std::uint8_t bytes[4];
    std::memcpy(bytes, in + w, 4);
    for (int i = 0; i < 5; ++i) {
      std::uint8_t trits[4];
      for (int j = 0; j < 4; ++j) {
        trits[j] = i < 4 ? bytes[j] % 3 : bytes[j];
        bytes[j] /= 3;
      }
      std::memcpy(out++, trits, 4);
    }
  }
#else
  const Word d;
  const hn::Repartition<std::uint16_t, Word> half;
  const std::size_t lanes = hn::Lanes(d);
  const auto third = hn::Set(half, std::uint16_t{21846});  // of 2^16, and more
  const auto three = hn::Set(half, std::uint16_t{3});
  for (std::int64_t w = 0; w < words; ++w, in += lanes) {
    const auto bytes = hn::BitCast(half, hn::LoadU(d, in));
    auto even = hn::And(bytes, hn::Set(half, std::uint16_t{0xff}));
    auto odd = hn::ShiftRight<8>(bytes);
    const auto put = [&](auto low, auto high) HWY_ATTR {
      const auto both = hn::Or(low, hn::ShiftLeft<8>(high));
      hn::StoreU(hn::BitCast(d, both), d, out);
      out += lanes;
    };
    for (int i = 0; i < 4; ++i) {
      const auto even_rest = hn::MulHigh(even, third);
      const auto odd_rest = hn::MulHigh(odd, third);
      put(hn::Sub(even, hn::Mul(even_rest, three)),
          hn::Sub(odd, hn::Mul(odd_rest, three)));
      even = even_rest;
      odd = odd_rest;
    }
    put(even, odd);
  }
#endif
}

}  // namespace fettle::kernels::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#endif
