// SPDX-License-Identifier: Apache-2.0
// The sigmoid that gates are made of.
#if defined(FETTLE_KERNELS_CPU_ACTIVATION_INL_H_) == defined(HWY_TARGET_TOGGLE)
#ifdef FETTLE_KERNELS_CPU_ACTIVATION_INL_H_
#undef FETTLE_KERNELS_CPU_ACTIVATION_INL_H_
#else
#define FETTLE_KERNELS_CPU_ACTIVATION_INL_H_
#endif

#include "kernels/cpu/vec-inl.h"

HWY_BEFORE_NAMESPACE();
namespace fettle::kernels::HWY_NAMESPACE {

// σ(v), through e^−|v| so that nothing overflows.
HWY_INLINE V sigmoid(V v) {
  const D d;
  const V one = hn::Set(d, 1.0f);
  const V e = exp_negative(hn::Neg(hn::Abs(v)));
  const V top = hn::IfThenElse(hn::Lt(v, hn::Zero(d)), e, one);
  return hn::Div(top, hn::Add(one, e));
}

}  // namespace fettle::kernels::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#endif
