// SPDX-License-Identifier: Apache-2.0
// One head of a chunk: what it writes, and the state behind it.
#if defined(FETTLE_KERNELS_CPU_SCAN_HEAD_INL_H_) == defined(HWY_TARGET_TOGGLE)
#ifdef FETTLE_KERNELS_CPU_SCAN_HEAD_INL_H_
#undef FETTLE_KERNELS_CPU_SCAN_HEAD_INL_H_
#else
#define FETTLE_KERNELS_CPU_SCAN_HEAD_INL_H_
#endif

#include "kernels/cpu/scan_chunk-inl.h"

HWY_BEFORE_NAMESPACE();
namespace fettle::kernels::HWY_NAMESPACE {

// The j-th rows of `decay`, `seen` and `mixed`.
template <bool kDelta>
HWY_INLINE void weigh(const ScanChunk<kDelta>& c, std::size_t j) {
  const D d;
  const V from = hn::Set(d, c.level[j]), rest = hn::Set(d, c.level_rest[j]);
  const V zero = hn::Zero(d);
  const V row = hn::Set(d, static_cast<float>(j));
  const std::size_t at = j * c.token_stride;
  for (std::size_t i = 0; i < c.columns; i += hn::Lanes(d)) {
    const V column = hn::Iota(d, static_cast<float>(i));
    const V rise = hn::Add(
        hn::Sub(hn::LoadU(d, c.level + i), from),
        hn::Sub(hn::LoadU(d, c.level_rest + i), rest));
    // Above the diagonal it may overflow.
    const V all = exp_negative(hn::IfThenElse(hn::Gt(rise, zero), zero, rise));
    const V by = hn::IfThenElseZero(hn::Ge(column, row), all);
    hn::StoreU(by, d, c.decay + at + i);
    hn::StoreU(hn::Mul(by, hn::LoadU(d, c.qk + at + i)), d, c.seen + at + i);
    if constexpr (kDelta) {
      const V both = hn::Mul(by, hn::LoadU(d, c.kk + at + i));
      hn::StoreU(
          hn::IfThenElseZero(hn::Gt(column, row), both), d, c.mixed + at + i);
    }
  }
}

// A head's values, decays and weights.
template <bool kDelta>
void load_head(ScanChunk<kDelta>& c, std::size_t head) {
  c.head = head;
  const ScanArgs& a = c.t.a;
  copy_rows(
      c.source(a.v, c.t.value_size, c.t.first_head + head),
      {false, 0.0f, 1.0f},
      c.t.value_stride,
      c.v,
      nullptr);
  double sum = 0;
  for (std::size_t i = 0; i < c.columns; ++i) {
    const std::size_t at = c.t.index(head, c.start + i);
    if (i < c.rows) {
      sum += a.g[at];
      c.written[i] = a.write[at];
    }
    c.level[i] = static_cast<float>(sum);
    c.level_rest[i] = static_cast<float>(sum - c.level[i]);
  }
  c.over = __builtin_expf(static_cast<float>(sum));
  for (std::size_t i = 0; i < c.rows; ++i) {
    const float left = c.level[c.rows - 1] - c.level[i];
    c.from_start[i] = __builtin_expf(c.level[i]);
    c.to_end[i] =
        __builtin_expf(left + (c.level_rest[c.rows - 1] - c.level_rest[i]));
  }
  for (std::size_t j = 0; j < c.rows; ++j) weigh(c, j);
}

// What tokens [0, begin) wrote, from what those of [begin, end) find.
template <bool kDelta>
void subtract_found(
    const ScanChunk<kDelta>& c, std::size_t begin, std::size_t end) {
  if (begin == 0) return;
  float negative[kScanChunk * kStep];
  for (std::size_t j = 0; j < begin; ++j) {
    for (std::size_t r = begin; r < end; ++r) {
      negative[j * kStep + r - begin] = -c.mixed[j * c.token_stride + r];
    }
  }
  multiply(
      {end - begin, c.t.value_width, begin},
      {negative, 1, kStep},
      {c.u, c.t.value_stride},
      {c.value(c.v, begin), c.t.value_stride},
      true);
}

// u, read and, in place of v, what u is w times of.
template <bool kDelta>
void solve(ScanChunk<kDelta>& c, const float* state) {
  if constexpr (kDelta) {
    multiply(
        {c.rows, c.t.value_width, c.t.key_size},
        {c.k, c.t.key_stride, 1},
        {state, c.t.value_stride},
        {c.read, c.t.value_stride},
        false);
    for (std::size_t i = 0; i < c.rows; ++i) {
      add_scaled(
          c.value(c.read, i),
          c.t.value_width,
          -c.from_start[i],
          c.value(c.v, i));
    }
  }
  for (std::size_t i = 0; i < c.rows; i += kStep) {
    const std::size_t end = smaller(i + kStep, c.rows);
    if constexpr (kDelta) subtract_found(c, i, end);
    for (std::size_t r = i; r < end; ++r) {
      if constexpr (kDelta) {
        for (std::size_t j = i; j < r; ++j) {
          add_scaled(
              c.value(c.u, j),
              c.t.value_width,
              -c.mixed[j * c.token_stride + r],
              c.value(c.v, r));
        }
      }
      scale_to(c.value(c.v, r), c.t.value_width, c.written[r], c.value(c.u, r));
    }
  }
}

// The state behind the chunk in the place of the one before it. Leaves u
// scaled by to_end.
template <bool kDelta>
void move_state(const ScanChunk<kDelta>& c, float* state) {
  for (std::size_t j = 0; j < c.rows; ++j) {
    scale_to(c.value(c.u, j), c.t.value_width, c.to_end[j], c.value(c.u, j));
  }
  for (std::size_t d = 0; d < c.t.key_size; ++d) {
    float* const row = state + d * c.t.value_stride;
    scale_to(row, c.t.value_width, c.over, row);
  }
  multiply(
      {c.t.key_size, c.t.value_width, c.rows},
      {c.k, 1, c.t.key_stride},
      {c.u, c.t.value_stride},
      {state, c.t.value_stride},
      true);
}

}  // namespace fettle::kernels::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#endif
