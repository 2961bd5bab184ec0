// SPDX-License-Identifier: Apache-2.0
// A group of columns and rounding to its levels, a row a lane.
#if defined(FETTLE_KERNELS_CPU_ROUNDING_INL_H_) == defined(HWY_TARGET_TOGGLE)
#ifdef FETTLE_KERNELS_CPU_ROUNDING_INL_H_
#undef FETTLE_KERNELS_CPU_ROUNDING_INL_H_
#else
#define FETTLE_KERNELS_CPU_ROUNDING_INL_H_
#endif

#include "kernels/cpu/vec-inl.h"

HWY_BEFORE_NAMESPACE();
namespace fettle::kernels::HWY_NAMESPACE {

// What a group's weights are rounded with: of kInt scale and zero, of ternary
// scale and threshold (in `zero`).
struct Levels {
  V scale, zero;
};

HWY_INLINE V all(float v) { return hn::Set(D(), v); }

HWY_INLINE V reciprocal(V v) {
  const auto some = hn::Ne(v, hn::Zero(D()));
  return hn::IfThenElseZero(
      some, hn::Div(all(1.0f), hn::IfThenElse(some, v, all(1.0f))));
}

// The code of a weight, as a float, and its value.
struct IntRounding {
  V scale, inverse, zero, top;

  IntRounding(const Levels& levels, int bits)
      : scale(levels.scale),
        inverse(reciprocal(levels.scale)),
        zero(levels.zero),
        top(all(static_cast<float>((1 << bits) - 1))) {}

  static HWY_INLINE IntRounding at_curvature(const Levels& l, int bits, V) {
    return {l, bits};
  }
  HWY_INLINE V code(V w) const {
    const V q = hn::Add(hn::Round(hn::Mul(w, inverse)), zero);
    return hn::Min(hn::Max(q, hn::Zero(D())), top);
  }
  HWY_INLINE V value(V code) const {
    return hn::Mul(hn::Sub(code, zero), scale);
  }
};

struct TernaryRounding {
  V scale, threshold;

  TernaryRounding(const Levels& levels, int)
      : scale(levels.scale), threshold(levels.zero) {}

  // A weight is worth being not 0 where that lowers curvature x error² by more
  // than `zero`.
  static HWY_INLINE TernaryRounding
  at_curvature(const Levels& l, int bits, V curvature) {
    const V half = hn::Mul(l.scale, all(0.5f));
    const V twice = hn::Mul(hn::Add(l.scale, l.scale), curvature);
    return {{l.scale, hn::MulAdd(l.zero, reciprocal(twice), half)}, bits};
  }
  HWY_INLINE V code(V w) const {
    const V one = all(1.0f);
    const V size = hn::IfThenElseZero(hn::Gt(hn::Abs(w), threshold), one);
    return hn::Add(hn::CopySign(size, w), one);
  }
  HWY_INLINE V value(V code) const {
    return hn::Mul(hn::Sub(code, all(1.0f)), scale);
  }
};

// A group's weights, transposed: column j of the tile's rows at w[j lanes].
struct Group {
  const float* w;
  const float* importance;
  std::int64_t cols;

  HWY_INLINE V at(std::int64_t j) const {
    return hn::LoadU(D(), w + j * static_cast<std::int64_t>(hn::Lanes(D())));
  }
};

}  // namespace fettle::kernels::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#endif
