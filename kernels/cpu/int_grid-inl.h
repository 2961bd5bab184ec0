// SPDX-License-Identifier: Apache-2.0
// The search for a group's scale, and zero point, by which its weights lose
// least as integers of few bits, a row a lane.
#if defined(FETTLE_KERNELS_CPU_INT_GRID_INL_H_) == defined(HWY_TARGET_TOGGLE)
#ifdef FETTLE_KERNELS_CPU_INT_GRID_INL_H_
#undef FETTLE_KERNELS_CPU_INT_GRID_INL_H_
#else
#define FETTLE_KERNELS_CPU_INT_GRID_INL_H_
#endif

#include <algorithm>
#include <limits>

#include "kernels/cpu/rounding-inl.h"
#include "kernels/gptq_args.h"

HWY_BEFORE_NAMESPACE();
namespace fettle::kernels::HWY_NAMESPACE {

HWY_INLINE V rounding_error(const Group& g, const Levels& levels, int bits) {
  const IntRounding rounding(levels, bits);
  V sum = hn::Zero(D());
  for (std::int64_t j = 0; j < g.cols; ++j) {
    const V w = g.at(j);
    const V d = hn::Sub(w, rounding.value(rounding.code(w)));
    sum = hn::MulAdd(hn::Mul(d, d), all(g.importance[j]), sum);
  }
  return sum;
}

// The scale that fits the codes best once they are chosen.
HWY_INLINE V refined_scale(const Group& g, const Levels& levels, int bits) {
  const IntRounding rounding(levels, bits);
  V top = hn::Zero(D());
  V bottom = hn::Zero(D());
  for (std::int64_t j = 0; j < g.cols; ++j) {
    const V w = g.at(j);
    const V level = hn::Sub(rounding.code(w), rounding.zero);
    const V weighted = hn::Mul(level, all(g.importance[j]));
    top = hn::MulAdd(weighted, w, top);
    bottom = hn::MulAdd(weighted, level, bottom);
  }
  const auto some = hn::Gt(bottom, hn::Zero(D()));
  const V ratio = hn::Div(top, hn::IfThenElse(some, bottom, all(1.0f)));
  return rounded_to<Bf16>(hn::IfThenElse(some, ratio, levels.scale));
}

Levels fit_int(const Group& g, const GridArgs& grid) {
  const D d;
  V low = hn::Zero(d);
  V high = hn::Zero(d);
  for (std::int64_t j = 0; j < g.cols; ++j) {
    low = hn::Min(low, g.at(j));
    high = hn::Max(high, g.at(j));
  }
  const float top = static_cast<float>((1 << grid.bits) - 1);
  const float half = static_cast<float>(1 << (grid.bits - 1));
  const V largest = hn::Max(hn::Neg(low), high);
  Levels best{hn::Zero(d), all(half)};
  V least = all(std::numeric_limits<float>::infinity());
  const auto consider = [&](const Levels& levels) HWY_ATTR {
    const V error = rounding_error(g, levels, grid.bits);
    const auto better = hn::Lt(error, least);
    least = hn::IfThenElse(better, error, least);
    best.scale = hn::IfThenElse(better, levels.scale, best.scale);
    best.zero = hn::IfThenElse(better, levels.zero, best.zero);
  };
  for (int i = 0; i < grid.steps; ++i) {
    const float share =
        1.0f - (1.0f - grid.least_share) * static_cast<float>(i) /
                   static_cast<float>(std::max(grid.steps - 1, 1));
    if (grid.symmetric) {
      const V scale =
          rounded_to<Bf16>(hn::Mul(largest, all(share / (half - 0.5f))));
      consider({scale, all(half)});
      // The odd level is below zero; few levels gain by its being above.
      if (grid.bits <= 3) consider({hn::Neg(scale), all(half)});
    } else {
      const V scale =
          rounded_to<Bf16>(hn::Mul(hn::Sub(high, low), all(share / top)));
      const V zero = hn::Round(
          hn::Mul(hn::Neg(hn::Mul(low, all(share))), reciprocal(scale)));
      consider({scale, hn::Min(hn::Max(zero, hn::Zero(d)), all(top))});
    }
  }
  for (int i = 0; i < 2; ++i) {
    consider({refined_scale(g, best, grid.bits), best.zero});
  }
  return best;
}

}  // namespace fettle::kernels::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#endif
