// SPDX-License-Identifier: Apache-2.0
// The search for a group's scale and threshold by which its weights lose least
// as trits, a row a lane.
#if defined(FETTLE_KERNELS_CPU_TERNARY_GRID_INL_H_) == \
    defined(HWY_TARGET_TOGGLE)
#ifdef FETTLE_KERNELS_CPU_TERNARY_GRID_INL_H_
#undef FETTLE_KERNELS_CPU_TERNARY_GRID_INL_H_
#else
#define FETTLE_KERNELS_CPU_TERNARY_GRID_INL_H_
#endif

#include <algorithm>
#include <limits>

#include "kernels/cpu/rounding-inl.h"
#include "kernels/gptq_args.h"

HWY_BEFORE_NAMESPACE();
namespace fettle::kernels::HWY_NAMESPACE {

HWY_INLINE V plogp(V p) {
  const auto some = hn::Gt(p, hn::Zero(D()));
  const V log = hn::Log(D(), hn::IfThenElse(some, p, all(1.0f)));
  return hn::Mul(hn::Mul(p, log), all(1.4426950408889634f));
}

// Entropy-constrained: relative error plus entropy_weight x bits is least.
Levels fit_ternary(const Group& g, const GridArgs& grid) {
  const float nearest = grid.entropy_weight > 0 ? kNearestWhereBitsCount : 0.0f;
  const D d;
  V square = hn::Zero(d);
  float weight = 0;
  for (std::int64_t j = 0; j < g.cols; ++j) {
    const V w = g.at(j);
    square = hn::MulAdd(hn::Mul(w, w), all(g.importance[j]), square);
    weight += g.importance[j];
  }
  const V rms = hn::Sqrt(hn::Div(square, all(std::max(weight, 1e-30f))));
  const V relative = reciprocal(square);
  Levels best{hn::Zero(d), hn::Zero(d)};
  V least = all(std::numeric_limits<float>::infinity());
  for (int i = 0; i < grid.steps; ++i) {
    const float share = static_cast<float>(i) / static_cast<float>(grid.steps);
    const V threshold =
        hn::Mul(rms, all(nearest + (kFarthest - nearest) * share));
    V size = hn::Zero(d), mass = hn::Zero(d), count = hn::Zero(d);
    for (std::int64_t j = 0; j < g.cols; ++j) {
      const V w = hn::Abs(g.at(j));
      const auto kept = hn::Gt(w, threshold);
      const V h = hn::IfThenElseZero(kept, all(g.importance[j]));
      size = hn::MulAdd(h, w, size);
      mass = hn::Add(mass, h);
      count = hn::Add(count, hn::IfThenElseZero(kept, all(1.0f)));
    }
    const V scale = rounded_to<Bf16>(hn::Mul(size, reciprocal(mass)));
    const V gained =
        hn::Mul(scale, hn::NegMulAdd(scale, mass, hn::Add(size, size)));
    const V error = hn::Mul(hn::Sub(square, gained), relative);
    const V p = hn::Mul(count, all(1.0f / static_cast<float>(g.cols)));
    const V bits = hn::Sub(p, hn::Add(plogp(p), plogp(hn::Sub(all(1.0f), p))));
    const V cost = hn::MulAdd(bits, all(grid.entropy_weight), error);
    const auto better = hn::Lt(cost, least);
    least = hn::IfThenElse(better, cost, least);
    best.scale = hn::IfThenElse(better, scale, best.scale);
    best.zero = hn::IfThenElse(better, threshold, best.zero);
  }
  return best;
}

}  // namespace fettle::kernels::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#endif
