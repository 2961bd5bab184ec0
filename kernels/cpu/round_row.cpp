// SPDX-License-Identifier: Apache-2.0
#include <algorithm>
#include <limits>

#include "kernels/cpu/parallel.h"
#include "kernels/cpu/rounded.h"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "kernels/cpu/round_row.cpp"
#include <hwy/foreach_target.h>
#include <hwy/highway.h>

#include "kernels/cpu/vec-inl.h"

HWY_BEFORE_NAMESPACE();
namespace fettle::kernels::HWY_NAMESPACE {

// The largest |x| of a block, NaN where one is not finite.
HWY_INLINE float largest(const float* x, std::size_t count) {
  V all = hn::Zero(D()), odd = hn::Zero(D());
  for_row(count, [&](std::size_t i, auto part) HWY_ATTR {
    const V value = load(x + i, part);
    all = hn::Max(all, hn::Abs(value));
    odd = hn::MulAdd(value, hn::Zero(D()), odd);  // 0, or NaN
  });
  const float top = hn::GetLane(hn::MaxOfLanes(D(), all));
  const float none = hn::GetLane(hn::SumOfLanes(D(), odd));
  return none == 0.0f ? top : std::numeric_limits<float>::quiet_NaN();
}

HWY_INLINE void round_values(
    const float* x, std::size_t count, float by, std::int8_t* out) {
  const hn::Rebind<std::int8_t, D> narrow;
  const V factor = hn::Set(D(), by);
  for_row(count, [&](std::size_t i, auto part) HWY_ATTR {
    const auto near = hn::NearestInt(hn::Mul(load(x + i, part), factor));
    hn::StoreU(hn::DemoteTo(narrow, near), narrow, out + i);
  });
}

// Sixteen codes from their order to planes.
template <int P>
HWY_INLINE void to_planes(const std::int8_t* in, std::int8_t* out) {
  for (int w = 0; w < 4 / P; ++w) {
    for (int p = 0; p < P; ++p) {
      for (int j = 0; j < 4; ++j) {
        out[4 * P * w + 4 * p + j] = in[4 * P * w + P * j + p];
      }
    }
  }
}

// Twenty codes to the five planes of a word of trits.
HWY_INLINE void to_trit_planes(const std::int8_t* in, std::int8_t* out) {
  for (int p = 0; p < 5; ++p) {
    for (int j = 0; j < 4; ++j) out[4 * p + j] = in[5 * j + p];
  }
}

// Puts the codes of block b, zeros around them, in their places.
HWY_INLINE void lay_codes(
    const RoundedShape& s,
    std::int64_t b,
    const std::int8_t* codes,
    std::int8_t* out) {
  if (s.trits) {
    const std::int64_t words = (s.end_word(b) - s.first_word(b)) / 5;
    for (std::int64_t i = 0; i < words * 20; i += 20) {
      to_trit_planes(codes + i, out + i);
    }
    return;
  }
  const std::int64_t values = (s.end_word(b) - s.first_word(b)) * 4 * s.planes;
  for (std::int64_t i = 0; i < values; i += 16) {
    if (s.planes == 1) std::memcpy(out + i, codes + i, 16);
    if (s.planes == 2) to_planes<2>(codes + i, out + i);
    if (s.planes == 4) to_planes<4>(codes + i, out + i);
  }
}

void RoundRow(const float* x, const RoundedRows& rows, std::int64_t row) {
  const RoundedShape& s = rows.shape;
  for (std::int64_t b = 0; b < s.blocks; ++b) {
    const std::int64_t begin = b * s.block;
    const std::int64_t count = std::min(s.block, s.cols - begin);
    const float top = largest(x + begin, static_cast<std::size_t>(count));
    // Smaller ones have no reciprocal.
    const bool any = top > 1e-36f;
    // Trits of other blocks may be ahead, and behind all there is what a vector
    // writes too much.
    HWY_ALIGN std::int8_t memory[kMostOfABlock + 128] = {};
    std::int8_t* codes = memory + (s.trits ? begin % s.kTritWord : 0);
    if (any) {
      round_values(
          x + begin, static_cast<std::size_t>(count), 127.0f / top, codes);
    }
    std::int32_t sum = 0;
    for (std::int64_t i = 0; i < count; ++i) sum += codes[i];
    std::fill_n(codes + count, 64, std::int8_t{0});
    rows.scales[row * s.blocks + b] = any || !(top == top) ? top / 127.0f : 0;
    rows.sums[row * s.blocks + b] = sum;
    lay_codes(s, b, memory, rows.codes + row * s.row_codes() + s.first_code(b));
  }
}

}  // namespace fettle::kernels::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace fettle::kernels {

HWY_EXPORT(RoundRow);

void cpu::round_rows(const RoundingArgs& args) {
  parallel_rows(args.n, 4 * args.rows.shape.cols, [&](auto begin, auto end) {
    for (std::int64_t i = begin; i < end; ++i) {
      HWY_DYNAMIC_DISPATCH(RoundRow)
      (args.x + i * args.x_stride, args.rows, i);
    }
  });
}

}  // namespace fettle::kernels
#endif
