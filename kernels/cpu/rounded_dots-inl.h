// SPDX-License-Identifier: Apache-2.0
// Sums of four products of bytes in each lane of a vector.
#if defined(FETTLE_KERNELS_CPU_ROUNDED_DOTS_INL_H_) == \
    defined(HWY_TARGET_TOGGLE)
#ifdef FETTLE_KERNELS_CPU_ROUNDED_DOTS_INL_H_
#undef FETTLE_KERNELS_CPU_ROUNDED_DOTS_INL_H_
#else
#define FETTLE_KERNELS_CPU_ROUNDED_DOTS_INL_H_
#endif

#include "kernels/cpu/vec-inl.h"

#if HWY_TARGET == HWY_AVX2 || HWY_TARGET == HWY_AVX3
#include <immintrin.h>
#endif

HWY_BEFORE_NAMESPACE();
namespace fettle::kernels::HWY_NAMESPACE {

using Int = hn::RebindToSigned<D>;
using Word = hn::RebindToUnsigned<D>;
using Ints4 = hn::Vec<Int>;
using Words4 = hn::Vec<Word>;

// How a lane's four products are summed: kSmall, codes below 128; kAny, all
// bytes; kVnni, all, by the instruction that is made for it.
enum class Dot { kSmall, kAny, kVnni };

HWY_INLINE std::int32_t word_of(const void* p) {
  std::int32_t word;
  std::memcpy(&word, p, 4);
  return word;
}

// sum + the products of four unsigned bytes of `w` and the four signed ones at
// `x`, in each lane. Exact.
template <Dot kDot>
HWY_INLINE Ints4 add_dots(Ints4 sum, Words4 w, const std::int8_t* x) {
#if HWY_TARGET == HWY_AVX3
  if constexpr (kDot == Dot::kVnni) {
    // By its name: Highway's target does not have it.
    __m512i out = sum.raw;
    asm("vpdpbusd %2%{1to16%}, %1, %0"
        : "+v"(out)
        : "v"(w.raw), "m"(*reinterpret_cast<const std::int32_t(*)[1]>(x)));
    return Ints4{out};
  }
#endif
#if HWY_TARGET == HWY_AVX2
  if constexpr (kDot == Dot::kSmall) {
    const __m256i pairs =
        _mm256_maddubs_epi16(w.raw, _mm256_set1_epi32(word_of(x)));
    return hn::Add(sum, Ints4{_mm256_madd_epi16(pairs, _mm256_set1_epi16(1))});
  }
#elif HWY_TARGET == HWY_AVX3
  if constexpr (kDot == Dot::kSmall) {
    const __m512i pairs =
        _mm512_maddubs_epi16(w.raw, _mm512_set1_epi32(word_of(x)));
    return hn::Add(sum, Ints4{_mm512_madd_epi16(pairs, _mm512_set1_epi16(1))});
  }
#endif
  const auto four = hn::Set(Int(), word_of(x));
#if HWY_TARGET == HWY_AVX2 || HWY_TARGET == HWY_AVX3
  const hn::Repartition<std::int16_t, Int> half;
  const hn::Repartition<std::uint16_t, Int> bare;
  const auto x_even =
      hn::ShiftRight<8>(hn::ShiftLeft<8>(hn::BitCast(half, four)));
  const auto x_odd = hn::ShiftRight<8>(hn::BitCast(half, four));
  const auto w_even =
      hn::And(hn::BitCast(half, w), hn::Set(half, std::int16_t{0xff}));
  const auto w_odd = hn::BitCast(half, hn::ShiftRight<8>(hn::BitCast(bare, w)));
#if HWY_TARGET == HWY_AVX2
  const __m256i even = _mm256_madd_epi16(w_even.raw, x_even.raw);
  const __m256i odd = _mm256_madd_epi16(w_odd.raw, x_odd.raw);
#else
  const __m512i even = _mm512_madd_epi16(w_even.raw, x_even.raw);
  const __m512i odd = _mm512_madd_epi16(w_odd.raw, x_odd.raw);
#endif
  return hn::Add(sum, hn::Add(Ints4{even}, Ints4{odd}));
#else
  const auto add = [&](auto shifted_w, auto raised_x) HWY_ATTR {
    const auto code =
        hn::BitCast(Int(), hn::And(shifted_w, hn::Set(Word(), 0xffu)));
    sum = hn::Add(sum, hn::Mul(code, hn::ShiftRight<24>(raised_x)));
  };
  add(w, hn::ShiftLeft<24>(four));
  add(hn::ShiftRight<8>(w), hn::ShiftLeft<16>(four));
  add(hn::ShiftRight<16>(w), hn::ShiftLeft<8>(four));
  add(hn::ShiftRight<24>(w), four);
  return sum;
#endif
}

// Plane p of a word's bytes.
template <int P>
HWY_INLINE Words4 plane(Words4 w, int p) {
  const Word d;
  if constexpr (P == 1) return w;
  if constexpr (P == 2) {
    const auto mask = hn::Set(d, 0x0f0f0f0fu);
    return hn::And(p == 0 ? w : hn::ShiftRight<4>(w), mask);
  }
  const auto mask = hn::Set(d, 0x03030303u);
  if (p == 1) w = hn::ShiftRight<2>(w);
  if (p == 2) w = hn::ShiftRight<4>(w);
  if (p == 3) w = hn::ShiftRight<6>(w);
  return hn::And(w, mask);
}

}  // namespace fettle::kernels::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#endif
