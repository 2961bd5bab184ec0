// SPDX-License-Identifier: Apache-2.0
#include <algorithm>
#include <cmath>
#include <limits>

#include "kernels/cpu/cpu.h"
#include "kernels/cpu/parallel.h"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "kernels/cpu/cross_entropy.cpp"
#include <hwy/foreach_target.h>
#include <hwy/highway.h>

#include "kernels/cpu/vec-inl.h"

HWY_BEFORE_NAMESPACE();
namespace fettle::kernels::HWY_NAMESPACE {

// Lanes past the row's end must not win over negative logits.
template <class T>
HWY_INLINE V load_logits(const T* p, Whole whole) {
  return load(p, whole);
}
template <class T>
HWY_INLINE V load_logits(const T* p, Part part) {
  const D d;
  const V lowest = hn::Set(d, -std::numeric_limits<float>::infinity());
  return hn::IfThenElse(hn::FirstN(d, part.count), load(p, part), lowest);
}

template <class T>
float row_max(const T* x, std::size_t n) {
  const D d;
  const auto larger = [](V a, V b) HWY_ATTR { return hn::Max(a, b); };
  const V max = reduce_row(
      n,
      hn::Set(d, -std::numeric_limits<float>::infinity()),
      [&](V m, std::size_t i, auto part)
          HWY_ATTR { return hn::Max(load_logits(x + i, part), m); },
      larger);
  return hn::GetLane(hn::MaxOfLanes(d, max));
}

// With kStore, leaves e^(x − max) in x.
template <class T, bool kStore>
float sum_exp(T* x, std::size_t n, float max) {
  const V top = hn::Set(D(), max);
  return sum_row(n, [&](V sum, std::size_t i, auto part) HWY_ATTR {
    const V e = exp_negative(hn::Sub(load_logits(x + i, part), top));
    if constexpr (kStore) store(e, x + i, part);
    return hn::Add(sum, e);
  });
}

// The passes after the first run out of the cache that it has filled. float32
// keeps the exponentials in place; bfloat16 would round them, and computes them
// twice.
template <class T>
float score(const CrossEntropyArgs& a, T* x, std::int64_t target) {
  const std::size_t n = a.vocab;
  const float max = row_max(x, n);
  const V value = load(x + target, Part{1});
  const double picked = hn::GetLane(value);
  float sum;
  if (a.gradient && sizeof(T) == 4) {
    sum = sum_exp<T, true>(x, n, max);
    const V scale = hn::Set(D(), a.scale / sum);
    for_row(n, [&](std::size_t i, auto part) HWY_ATTR {
      store(hn::Mul(load(x + i, part), scale), x + i, part);
    });
  } else {
    sum = sum_exp<T, false>(x, n, max);
  }
  const double nll = std::log(static_cast<double>(sum)) + (max - picked);
  if (a.gradient && sizeof(T) != 4) {
    const V top = hn::Set(D(), max);
    const V scale = hn::Set(D(), a.scale / sum);
    for_row(n, [&](std::size_t i, auto part) HWY_ATTR {
      const V e = exp_negative(hn::Sub(load(x + i, part), top));
      store(hn::Mul(e, scale), x + i, part);
    });
  }
  if (a.gradient) {
    // From the exact probability, before T has rounded it.
    const double p = std::exp(picked - max) / sum;
    const V hit = hn::Set(D(), static_cast<float>((p - 1.0) * a.scale));
    store(hit, x + target, Part{1});
  }
  return static_cast<float>(nll);
}

template <class T>
void rows(const CrossEntropyArgs& a, std::int64_t begin, std::int64_t end) {
  for (std::int64_t r = begin; r < end; ++r) {
    T* x = static_cast<T*>(a.logits) + r * a.vocab;
    if (a.targets[r] >= 0) {
      a.nll[r] = score(a, x, a.targets[r]);
    } else {
      a.nll[r] = 0.0f;
      if (a.gradient) std::fill_n(x, a.vocab, T{0});
    }
  }
}

void ScoreRows(const CrossEntropyArgs& a, std::int64_t b, std::int64_t e) {
  a.dtype == DType::kFloat32 ? rows<float>(a, b, e) : rows<Bf16>(a, b, e);
}

}  // namespace fettle::kernels::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace fettle::kernels {

HWY_EXPORT(ScoreRows);

void cpu::cross_entropy(const CrossEntropyArgs& args) {
  parallel_rows(args.rows, 4 * args.vocab, [&](auto begin, auto end) {
    HWY_DYNAMIC_DISPATCH(ScoreRows)(args, begin, end);
  });
}

}  // namespace fettle::kernels
#endif
