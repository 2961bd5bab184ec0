// SPDX-License-Identifier: Apache-2.0
// Vectors of float32 over float32 or bfloat16 memory, and loops over a row.
// Compiled once per instruction set: the guard below is Highway's own idiom.
#if defined(FETTLE_KERNELS_CPU_VEC_INL_H_) == defined(HWY_TARGET_TOGGLE)
#ifdef FETTLE_KERNELS_CPU_VEC_INL_H_
#undef FETTLE_KERNELS_CPU_VEC_INL_H_
#else
#define FETTLE_KERNELS_CPU_VEC_INL_H_
#endif

#include <hwy/contrib/math/math-inl.h>
#include <hwy/highway.h>

#include <cstddef>
#include <cstdint>
#include <cstring>

HWY_BEFORE_NAMESPACE();
namespace fettle::kernels::HWY_NAMESPACE {

namespace hn = hwy::HWY_NAMESPACE;
using D = hn::ScalableTag<float>;
using V = hn::Vec<D>;
using Bf16 = std::uint16_t;  // the bits

// A whole vector, or the last `count` values of a row.
struct Whole {};
struct Part {
  std::size_t count;
};

HWY_INLINE V load(const float* p, Whole) { return hn::LoadU(D(), p); }

HWY_INLINE V load(const Bf16* p, Whole) {
  const hn::Rebind<std::uint16_t, D> half;
  const hn::RebindToUnsigned<D> full;
  return hn::BitCast(
      D(), hn::ShiftLeft<16>(hn::PromoteTo(full, hn::LoadU(half, p))));
}

// Nearest bfloat16, ties to even, in the upper half of each lane.
HWY_INLINE auto bf16_bits(V v) {
  const hn::RebindToUnsigned<D> u;
  const auto bits = hn::BitCast(u, v);
  const auto odd = hn::And(hn::ShiftRight<16>(bits), hn::Set(u, 1u));
  const auto rounded = hn::Add(bits, hn::Add(odd, hn::Set(u, 0x7fffu)));
  const auto nan = hn::Or(bits, hn::Set(u, 0x400000u));
  return hn::IfThenElse(hn::RebindMask(u, hn::IsNaN(v)), nan, rounded);
}

HWY_INLINE void store(V v, float* p, Whole) { hn::StoreU(v, D(), p); }

HWY_INLINE void store(V v, Bf16* p, Whole) {
  const hn::Rebind<std::uint16_t, D> half;
  const hn::RebindToSigned<D> full;
  hn::StoreU(
      hn::DemoteTo(half, hn::BitCast(full, hn::ShiftRight<16>(bf16_bits(v)))),
      half,
      p);
}

// The value as T holds it.
template <class T>
HWY_INLINE V rounded_to(V v) {
  if constexpr (sizeof(T) == 4) {
    return v;
  } else {
    const hn::RebindToUnsigned<D> u;
    return hn::BitCast(D(), hn::And(bf16_bits(v), hn::Set(u, 0xffff0000u)));
  }
}

// Lanes past the row's end are zero. Goes through the stack: a masked load may
// touch memory past the row.
template <class T>
HWY_INLINE V load(const T* p, Part part) {
  HWY_ALIGN T lanes[hn::MaxLanes(D())] = {};
  std::memcpy(lanes, p, part.count * sizeof(T));
  return load(lanes, Whole{});
}

template <class T>
HWY_INLINE void store(V v, T* p, Part part) {
  HWY_ALIGN T lanes[hn::MaxLanes(D())];
  store(v, lanes, Whole{});
  std::memcpy(p, lanes, part.count * sizeof(T));
}

// Calls f(i, Whole or Part) for the vectors of a row of n values.
template <class F>
HWY_INLINE void for_row(std::size_t n, const F& f) {
  const std::size_t lanes = hn::Lanes(D());
  std::size_t i = 0;
  for (; i + lanes <= n; i += lanes) f(i, Whole{});
  if (i < n) f(i, Part{n - i});
}

// Accumulates acc = f(acc, i, Whole or Part) over a row, in four chains so that
// additions need not wait for each other, then merges the chains.
template <class F, class Merge>
HWY_INLINE V reduce_row(std::size_t n, V init, const F& f, const Merge& merge) {
  const std::size_t lanes = hn::Lanes(D());
  V a = init, b = init, c = init, d = init;
  std::size_t i = 0;
  for (; i + 4 * lanes <= n; i += 4 * lanes) {
    a = f(a, i, Whole{});
    b = f(b, i + lanes, Whole{});
    c = f(c, i + 2 * lanes, Whole{});
    d = f(d, i + 3 * lanes, Whole{});
  }
  for (; i + lanes <= n; i += lanes) a = f(a, i, Whole{});
  if (i < n) b = f(b, i, Part{n - i});
  return merge(merge(a, b), merge(c, d));
}

template <class F>
HWY_INLINE float sum_row(std::size_t n, const F& f) {
  const V sum = reduce_row(
      n, hn::Zero(D()), f, [](V a, V b) HWY_ATTR { return hn::Add(a, b); });
  return hn::GetLane(hn::SumOfLanes(D(), sum));
}

// e^v for v ≤ 0, and NaN for NaN, which Highway's Exp would turn into zero.
HWY_INLINE V exp_negative(V v) {
  return hn::IfThenElse(hn::IsNaN(v), v, hn::Exp(D(), v));
}

}  // namespace fettle::kernels::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#endif
