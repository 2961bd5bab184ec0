// SPDX-License-Identifier: Apache-2.0
// Products of matrices that lie in the caches. The left matrix is read a value
// at a time and spread over a vector, so it may be stored either way; rows of
// the right one and of the result are whole vectors.
#if defined(FETTLE_KERNELS_CPU_TILE_INL_H_) == defined(HWY_TARGET_TOGGLE)
#ifdef FETTLE_KERNELS_CPU_TILE_INL_H_
#undef FETTLE_KERNELS_CPU_TILE_INL_H_
#else
#define FETTLE_KERNELS_CPU_TILE_INL_H_
#endif

#include "kernels/cpu/vec-inl.h"

HWY_BEFORE_NAMESPACE();
namespace fettle::kernels::HWY_NAMESPACE {

// Value (i, k) is data[i * row + k * step].
struct Left {
  const float* data;
  std::size_t row, step;
};

// A matrix whose rows begin `stride` values apart.
template <class T>
struct RowMajor {
  T* data;
  std::size_t stride;
};

struct Extent {
  std::size_t rows, cols, depth;  // cols: a multiple of the vector's lanes
};

// Result rows and vectors held in registers: 16 sums and the operands fit the
// 32 registers of AVX-512, 8 the 16 of AVX2 and SSE4.
constexpr int kTileRows = HWY_MAX_BYTES >= 64 ? 8 : 4;
constexpr int kTileVectors = 2;

// R rows and N vectors of c (+)= a b.
template <int R, int N>
HWY_INLINE void tile(
    const Left& a,
    const RowMajor<const float>& b,
    const RowMajor<float>& c,
    std::size_t depth,
    bool add) {
  const D d;
  const std::size_t lanes = hn::Lanes(d);
  V sum[R][N];
  for (int r = 0; r < R; ++r) {
    for (int n = 0; n < N; ++n) {
      sum[r][n] =
          add ? hn::LoadU(d, c.data + r * c.stride + n * lanes) : hn::Zero(d);
    }
  }
  for (std::size_t k = 0; k < depth; ++k) {
    V right[N];
    for (int n = 0; n < N; ++n) {
      right[n] = hn::LoadU(d, b.data + k * b.stride + n * lanes);
    }
    for (int r = 0; r < R; ++r) {
      const V left = hn::Set(d, a.data[r * a.row + k * a.step]);
      for (int n = 0; n < N; ++n) {
        sum[r][n] = hn::MulAdd(left, right[n], sum[r][n]);
      }
    }
  }
  for (int r = 0; r < R; ++r) {
    for (int n = 0; n < N; ++n) {
      hn::StoreU(sum[r][n], d, c.data + r * c.stride + n * lanes);
    }
  }
}

// All rows of N vectors' columns: tiles of R rows, then of fewer.
template <int R, int N>
HWY_INLINE void tile_column(
    std::size_t rows,
    std::size_t depth,
    Left a,
    const RowMajor<const float>& b,
    RowMajor<float> c,
    bool add) {
  for (; rows >= R; rows -= R) {
    tile<R, N>(a, b, c, depth, add);
    a.data += R * a.row;
    c.data += R * c.stride;
  }
  if constexpr (R > 1) {
    if (rows > 0) tile_column<R / 2, N>(rows, depth, a, b, c, add);
  }
}

// c = a b, or with `add` c += a b.
HWY_INLINE void multiply(
    const Extent& size,
    const Left& a,
    RowMajor<const float> b,
    RowMajor<float> c,
    bool add) {
  const std::size_t lanes = hn::Lanes(D());
  std::size_t left = size.cols / lanes;
  for (; left >= kTileVectors; left -= kTileVectors) {
    tile_column<kTileRows, kTileVectors>(size.rows, size.depth, a, b, c, add);
    b.data += kTileVectors * lanes;
    c.data += kTileVectors * lanes;
  }
  if (left > 0) {
    tile_column<kTileRows, 1>(size.rows, size.depth, a, b, c, add);
  }
}

}  // namespace fettle::kernels::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#endif
