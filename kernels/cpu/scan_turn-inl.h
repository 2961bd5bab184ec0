// SPDX-License-Identifier: Apache-2.0
// Turns matrices in a scan's scratch memory.
#if defined(FETTLE_KERNELS_CPU_SCAN_TURN_INL_H_) == defined(HWY_TARGET_TOGGLE)
#ifdef FETTLE_KERNELS_CPU_SCAN_TURN_INL_H_
#undef FETTLE_KERNELS_CPU_SCAN_TURN_INL_H_
#else
#define FETTLE_KERNELS_CPU_SCAN_TURN_INL_H_
#endif

#include "kernels/cpu/scratch-inl.h"

HWY_BEFORE_NAMESPACE();
namespace fettle::kernels::HWY_NAMESPACE {

#if HWY_MAX_BYTES >= 16
// Four values of four rows from `from` on, as four rows from `to` on.
HWY_INLINE void turn_four(
    const float* from, std::size_t stride, float* to, std::size_t to_stride) {
  const hn::FixedTag<float, 4> d;
  const auto a = hn::LoadU(d, from), b = hn::LoadU(d, from + stride);
  const auto c = hn::LoadU(d, from + 2 * stride);
  const auto e = hn::LoadU(d, from + 3 * stride);
  const auto ab = hn::InterleaveLower(d, a, b);
  const auto ce = hn::InterleaveLower(d, c, e);
  hn::StoreU(hn::ConcatLowerLower(d, ce, ab), d, to);
  hn::StoreU(hn::ConcatUpperUpper(d, ce, ab), d, to + to_stride);
  const auto ab_upper = hn::InterleaveUpper(d, a, b);
  const auto ce_upper = hn::InterleaveUpper(d, c, e);
  hn::StoreU(
      hn::ConcatLowerLower(d, ce_upper, ab_upper), d, to + 2 * to_stride);
  hn::StoreU(
      hn::ConcatUpperUpper(d, ce_upper, ab_upper), d, to + 3 * to_stride);
}
#endif

// [rows, cols] to [cols, rows], its rows filled up with zeros.
inline void turn(const Source& from, std::size_t stride, float* to) {
  std::size_t rows = 0;  // of the source, turned by fours
#if HWY_MAX_BYTES >= 16
  const std::size_t cols = from.cols / 4 * 4;
  for (; rows + 4 <= from.rows; rows += 4) {
    const float* const at = from.data + rows * from.stride;
    for (std::size_t c = 0; c < cols; c += 4) {
      turn_four(at + c, from.stride, to + c * stride + rows, stride);
    }
    for (std::size_t c = cols; c < from.cols; ++c) {
      for (std::size_t r = 0; r < 4; ++r) {
        to[c * stride + rows + r] = at[r * from.stride + c];
      }
    }
  }
#endif
  const std::size_t width = whole_vectors(from.rows);
  for (std::size_t c = 0; c < from.cols; ++c) {
    float* const row = to + c * stride;
    for (std::size_t r = rows; r < from.rows; ++r) {
      row[r] = from.data[r * from.stride + c];
    }
    fill(row + from.rows, width - from.rows, 0.0f);
  }
}

}  // namespace fettle::kernels::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#endif
