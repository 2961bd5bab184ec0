// SPDX-License-Identifier: Apache-2.0
// Packed integers as signed bytes in their order: a code less half its range.
#if defined(FETTLE_KERNELS_CPU_PACKED_CODES_INL_H_) == \
    defined(HWY_TARGET_TOGGLE)
#ifdef FETTLE_KERNELS_CPU_PACKED_CODES_INL_H_
#undef FETTLE_KERNELS_CPU_PACKED_CODES_INL_H_
#else
#define FETTLE_KERNELS_CPU_PACKED_CODES_INL_H_
#endif

#include "kernels/cpu/vec-inl.h"

HWY_BEFORE_NAMESPACE();
namespace fettle::kernels::HWY_NAMESPACE {

using Bytes = hn::ScalableTag<std::uint8_t>;
using Words = hn::RebindToUnsigned<D>;

#if HWY_TARGET == HWY_SCALAR
template <int kBits>
void int_codes(
    const std::uint8_t* in,
    std::int64_t,
    std::int64_t cols,
    std::uint8_t* out) {
  for (; cols > 0; cols -= 8, in += kBits, out += 8) {
    std::uint64_t eight = 0;
    std::memcpy(&eight, in, kBits);
    for (int i = 0; i < 8; ++i) {
      const std::uint64_t code = eight >> kBits * i & ((1 << kBits) - 1);
      out[i] = static_cast<std::uint8_t>(code - (1 << (kBits - 1)));
    }
  }
}
#else
// Four codes of three bits in twelve to four bytes.
template <class W>
HWY_INLINE W spread_threes(W twelve) {
  const Words d;
  const W pairs = hn::And(
      hn::Or(twelve, hn::ShiftLeft<10>(twelve)), hn::Set(d, 0x003f003fu));
  return hn::And(
      hn::Or(pairs, hn::ShiftLeft<5>(pairs)), hn::Set(d, 0x07070707u));
}

// Expands the first three quarters of the vector's bytes: three bytes of eight
// codes first go to a word of four.
template <class B>
HWY_INLINE void expand_threes(B bytes, std::uint8_t* out) {
  const Words d;
  const Bytes b;
  HWY_ALIGN std::int32_t from[hn::MaxLanes(D())];
  for (std::size_t i = 0; i < hn::Lanes(d); ++i) {
    from[i] = static_cast<std::int32_t>(i % 4 < 3 ? i / 4 * 3 + i % 4 : 0);
  }
  HWY_ALIGN static constexpr std::uint8_t kToWords[16] = {
      0, 1, 2, 0x80, 3, 4, 5, 0x80, 6, 7, 8, 0x80, 9, 10, 11, 0x80};
  const auto twelves =
      hn::TableLookupLanes(hn::BitCast(d, bytes), hn::SetTableIndices(d, from));
  const auto eights = hn::BitCast(
      d,
      hn::TableLookupBytesOr0(
          hn::BitCast(b, twelves), hn::LoadDup128(b, kToWords)));
  const auto less_half = [&](auto codes) HWY_ATTR {
    return hn::BitCast(d, hn::Sub(hn::BitCast(b, codes), hn::Set(b, 4)));
  };
  hn::StoreInterleaved2(
      less_half(spread_threes(hn::And(eights, hn::Set(d, 0xfff)))),
      less_half(spread_threes(hn::ShiftRight<12>(eights))),
      d,
      reinterpret_cast<std::uint32_t*>(out));
}

// A vector of packed bytes to signed bytes.
template <int kBits, class B>
HWY_INLINE void expand(B bytes, std::uint8_t* out) {
  const Bytes d;
  const B mask = hn::Set(d, (1 << kBits) - 1);
  const B half = hn::Set(d, 1 << (kBits - 1));
  const auto code = [&](B shifted) HWY_ATTR {
    return hn::Sub(hn::And(shifted, mask), half);
  };
  if constexpr (kBits == 2) {
    const B b = code(hn::ShiftRight<2>(bytes));
    const B c = code(hn::ShiftRight<4>(bytes));
    const B e = code(hn::ShiftRight<6>(bytes));
    hn::StoreInterleaved4(code(bytes), b, c, e, d, out);
  } else if constexpr (kBits == 3) {
    expand_threes(bytes, out);
  } else if constexpr (kBits == 4) {
    hn::StoreInterleaved2(code(bytes), code(hn::ShiftRight<4>(bytes)), d, out);
  } else {
    hn::StoreU(code(bytes), d, out);
  }
}

// `left`: bytes from `in` to the end of all codes. A vector may hold bytes of
// the next row, whose codes land behind this one's.
template <int kBits>
HWY_INLINE void int_codes(
    const std::uint8_t* in,
    std::int64_t left,
    std::int64_t cols,
    std::uint8_t* out) {
  const Bytes d;
  const std::int64_t loaded = hn::Lanes(d);
  const std::int64_t taken = kBits == 3 ? loaded / 4 * 3 : loaded;
  const std::int64_t codes = taken * 8 / kBits;
  for (; cols > 0 && left >= loaded; cols -= codes, left -= taken) {
    expand<kBits>(hn::LoadU(d, in), out);
    in += taken;
    out += codes;
  }
  for (; cols > 0; cols -= codes, left -= taken) {
    HWY_ALIGN std::uint8_t last[hn::MaxLanes(Bytes())] = {};
    std::memcpy(last, in, left < loaded ? left : loaded);
    expand<kBits>(hn::Load(d, last), out);
    in += taken;
    out += codes;
  }
}

#endif

}  // namespace fettle::kernels::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#endif
