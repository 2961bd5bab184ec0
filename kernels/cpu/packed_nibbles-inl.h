// SPDX-License-Identifier: Apache-2.0
// Products with integers of four bits as they lie in memory, where a vector has
// a lane for each of the sixteen numbers: a lane takes the eight codes of its
// four bytes in turn and looks up what each stands for. Nothing is written on
// the way.
#if defined(FETTLE_KERNELS_CPU_PACKED_NIBBLES_INL_H_) == \
    defined(HWY_TARGET_TOGGLE)
#ifdef FETTLE_KERNELS_CPU_PACKED_NIBBLES_INL_H_
#undef FETTLE_KERNELS_CPU_PACKED_NIBBLES_INL_H_
#else
#define FETTLE_KERNELS_CPU_PACKED_NIBBLES_INL_H_
#endif

#include <hwy/cache_control.h>

#include "kernels/cpu/packed_row-inl.h"

HWY_BEFORE_NAMESPACE();
namespace fettle::kernels::HWY_NAMESPACE {

inline constexpr int kLaneCodes = 8;          // of four bytes
inline constexpr int kVectorCodes = 128;      // of sixteen lanes
inline constexpr std::int64_t kAhead = 8192;  // bytes fetched before their turn

#if HWY_TARGET == HWY_AVX3
// Whether the matrix is of four bits, and its groups are whole vectors.
inline bool lies_in_nibbles(const PackedArgs& m) {
  return m.kind == PackedKind::kInt && m.bits == 4 && m.group > 0 &&
         m.group % kVectorCodes == 0 && m.cols % m.group == 0;
}

// A row of x in the order in which lanes meet it: the first values of all
// lanes, then the second ones. [cols]
HWY_INLINE void to_lanes(const float* x, std::int64_t cols, float* out) {
  const auto eighth = hn::Mul(hn::Iota(Ints(), 0), hn::Set(Ints(), kLaneCodes));
  for (std::int64_t i = 0; i < cols; i += kVectorCodes) {
    for (int k = 0; k < kLaneCodes; ++k) {
      const V values = hn::GatherIndex(D(), x + i + k, eighth);
      store(values, out + i + k * 16, Whole{});
    }
  }
}

// R rows of a matrix from `row` on, and rows of x as to_lanes puts them.
struct Nibbles {
  const PackedArgs& matrix;
  std::int64_t row;
  const float* x;
  std::int64_t x_stride;
};

// Adds the part of group `g` to the sums of R rows and N rows of x.
template <int R, int N, bool kZeros>
HWY_INLINE void add_nibbles(const Nibbles& m, std::int64_t g, V (&sums)[R][N]) {
  const hn::Repartition<std::uint8_t, D> bytes;
  const Words words;
  const V numbers = hn::Sub(hn::Iota(D(), 0), hn::Set(D(), 8.0f));
  V part[R][N], scale[R], zero[R];
  for (int q = 0; q < R; ++q) {
    const GroupScale by = group_scale(m.matrix, m.row + q, g);
    scale[q] = hn::Set(D(), by.scale);
    zero[q] = hn::Set(D(), static_cast<float>(by.zero));
    for (int n = 0; n < N; ++n) part[q][n] = hn::Zero(D());
  }
  const std::int64_t begin = g * m.matrix.group;
  const std::uint8_t* at =
      m.matrix.codes + m.row * m.matrix.row_bytes + begin / 2;
  for (std::int64_t i = 0; i < m.matrix.group; i += kVectorCodes) {
    hn::Vec<Words> codes[R];
    for (int q = 0; q < R; ++q) {
      const std::uint8_t* from = at + q * m.matrix.row_bytes + i / 2;
      hwy::Prefetch(from + kAhead);
      codes[q] = hn::BitCast(words, hn::LoadU(bytes, from));
    }
    for (int k = 0; k < kLaneCodes; ++k) {
      V x[N];
      for (int n = 0; n < N; ++n) {
        x[n] = load(m.x + n * m.x_stride + begin + i + k * 16, Whole{});
      }
      for (int q = 0; q < R; ++q) {
        // The lookup takes a lane's lowest four bits.
        V w = V{_mm512_permutexvar_ps(codes[q].raw, numbers.raw)};
        if constexpr (kZeros) w = hn::Sub(w, zero[q]);
        codes[q] = hn::ShiftRight<4>(codes[q]);
        for (int n = 0; n < N; ++n)
          part[q][n] = hn::MulAdd(w, x[n], part[q][n]);
      }
    }
  }
  for (int q = 0; q < R; ++q) {
    for (int n = 0; n < N; ++n) {
      sums[q][n] = hn::MulAdd(scale[q], part[q][n], sums[q][n]);
    }
  }
}

template <int R, int N>
void meet_nibbles(const Nibbles& m, float* y, std::int64_t y_stride) {
  sum_groups<R, N>(
      m.matrix,
      [&]<bool kZeros>(std::int64_t g, V(&sums)[R][N])
          HWY_ATTR { add_nibbles<R, N, kZeros>(m, g, sums); },
      y,
      y_stride);
}

// R rows of the matrix and all n rows of x.
template <int R>
void multiply_nibbles(
    const Nibbles& m, std::int64_t n, float* y, std::int64_t y_stride) {
  meet_rows_of_x<R>(n, [&]<int Q, int N>(int q, std::int64_t i) HWY_ATTR {
    meet_nibbles<Q, N>(
        {m.matrix, m.row + q, m.x + i * m.x_stride, m.x_stride},
        y + i * y_stride + q,
        y_stride);
  });
}
#endif

}  // namespace fettle::kernels::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#endif
