// SPDX-License-Identifier: Apache-2.0
// The codes of a packed row of any kind as signed bytes, vectors of them as
// numbers, and the sums of groups of them.
#if defined(FETTLE_KERNELS_CPU_PACKED_ROW_INL_H_) == defined(HWY_TARGET_TOGGLE)
#ifdef FETTLE_KERNELS_CPU_PACKED_ROW_INL_H_
#undef FETTLE_KERNELS_CPU_PACKED_ROW_INL_H_
#else
#define FETTLE_KERNELS_CPU_PACKED_ROW_INL_H_
#endif

#include "kernels/cpu/packed_codes-inl.h"
#include "kernels/cpu/packed_scratch.h"
#include "kernels/cpu/trit_row-inl.h"
#include "kernels/packed_args.h"

HWY_BEFORE_NAMESPACE();
namespace fettle::kernels::HWY_NAMESPACE {

using Ints = hn::RebindToSigned<D>;

HWY_INLINE void trit_codes(
    const std::uint8_t* in, std::int64_t cols, std::int8_t* out) {
  const auto five = [&](std::int64_t i) {
    std::memcpy(out + 5 * i, cpu::kTritsOfBytes.of[in[i]].trits, 8);
  };
  for (; cols >= 40; cols -= 40, in += 8, out += 40) {
    for (std::int64_t i = 0; i < 8; ++i) five(i);
  }
  for (std::int64_t i = 0; 5 * i < cols; ++i) five(i);
}

// Writes the row's codes, and up to cpu::kBehindCodes bytes behind them. False
// when they are damaged.
HWY_INLINE bool row_codes(
    const PackedArgs& m, std::int64_t row, std::int8_t* out) {
  const std::int64_t begin = row * m.row_bytes;
  const std::uint8_t* in = m.codes + begin;
  const std::int64_t left = m.codes_bytes - begin;
  auto* bytes = reinterpret_cast<std::uint8_t*>(out);
  switch (m.kind) {
    case PackedKind::kInt:
      if (m.bits == 2) int_codes<2>(in, left, m.cols, bytes);
      if (m.bits == 3) int_codes<3>(in, left, m.cols, bytes);
      if (m.bits == 4) int_codes<4>(in, left, m.cols, bytes);
      if (m.bits == 8) int_codes<8>(in, left, m.cols, bytes);
      return true;
    case PackedKind::kTernary:
      trit_codes(in, m.cols, out);
      return true;
    case PackedKind::kTernaryWords:
    case PackedKind::kTernaryHuffman:
      static_assert(kBehindTrits <= cpu::kBehindCodes);
      return trit_row(m, row, out);
  }
  return false;
}

// The factor of a group's codes, and what is left to subtract from
// them where it has a zero of its own.
struct GroupScale {
  float scale;
  std::int32_t zero;
};

HWY_INLINE GroupScale
group_scale(const PackedArgs& m, std::int64_t row, std::int64_t group) {
  const std::int64_t at = row * m.groups + group;
  const std::uint32_t bits = static_cast<std::uint32_t>(m.scales[at]) << 16;
  GroupScale result{0.0f, 0};
  std::memcpy(&result.scale, &bits, sizeof(float));
  if (m.zeros != nullptr) result.zero = m.zeros[at] - (1 << (m.bits - 1));
  return result;
}

// A vector of codes less their zero.
template <bool kZeros>
HWY_INLINE V numbers(const std::int8_t* codes, hn::Vec<Ints> zero) {
  const hn::Rebind<std::int8_t, D> narrow;
  auto wide = hn::PromoteTo(Ints(), hn::LoadU(narrow, codes));
  if constexpr (kZeros) wide = hn::Sub(wide, zero);
  return hn::ConvertTo(D(), wide);
}

// y [N, R] = the sums to which `add<kZeros>(g, sums)` adds each group's part.
template <int R, int N, class Add>
HWY_INLINE void sum_groups(
    const PackedArgs& m, const Add& add, float* y, std::int64_t y_stride) {
  V sums[R][N];
  for (int q = 0; q < R; ++q) {
    for (int n = 0; n < N; ++n) sums[q][n] = hn::Zero(D());
  }
  for (std::int64_t g = 0; g < m.groups; ++g) {
    m.zeros == nullptr ? add.template operator()<false>(g, sums)
                       : add.template operator()<true>(g, sums);
  }
  for (int q = 0; q < R; ++q) {
    for (int n = 0; n < N; ++n) {
      y[n * y_stride + q] = hn::GetLane(hn::SumOfLanes(D(), sums[q][n]));
    }
  }
}

// Has R rows of a matrix meet all n rows of x: calls meet<Q, N>(q, i) for Q
// rows from the q-th on and N rows of x from the i-th on.
template <int R, class Meet>
HWY_INLINE void meet_rows_of_x(std::int64_t n, const Meet& meet) {
  std::int64_t i = 0;
  for (; i + 4 <= n; i += 4) {
    if constexpr (R == 1) {
      meet.template operator()<1, 4>(0, i);
    } else {  // half of the rows at a time: their sums and parts fill registers
      meet.template operator()<R / 2, 4>(0, i);
      meet.template operator()<R / 2, 4>(R / 2, i);
    }
  }
  for (; i + 2 <= n; i += 2) meet.template operator()<R, 2>(0, i);
  for (; i < n; ++i) meet.template operator()<R, 1>(0, i);
}

}  // namespace fettle::kernels::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#endif
