// SPDX-License-Identifier: Apache-2.0
// Rows of values in a scan's scratch memory, and products of matrices of them
// that are zero on one side of the diagonal.
#if defined(FETTLE_KERNELS_CPU_SCAN_ROWS_INL_H_) == defined(HWY_TARGET_TOGGLE)
#ifdef FETTLE_KERNELS_CPU_SCAN_ROWS_INL_H_
#undef FETTLE_KERNELS_CPU_SCAN_ROWS_INL_H_
#else
#define FETTLE_KERNELS_CPU_SCAN_ROWS_INL_H_
#endif

#include "kernels/cpu/scratch-inl.h"
#include "kernels/cpu/tile-inl.h"

HWY_BEFORE_NAMESPACE();
namespace fettle::kernels::HWY_NAMESPACE {

// Rows of a triangle that are multiplied at once: as deep as the last needs.
constexpr std::size_t kStep = 16;

// Rows of so many values lie a stride apart that is no power of two, which
// would let them share a few lines of the first-level cache.
HWY_INLINE std::size_t padded_stride(std::size_t n) {
  return whole_vectors(n) + hn::Lanes(D());
}

// c += a b with a[i, k] = 0 for k > i, or k < i where `upper`.
struct Triangle {
  std::size_t size, cols;
  bool upper = false;
};

HWY_INLINE void add_triangle(
    const Triangle& of,
    const Left& a,
    const RowMajor<const float>& b,
    const RowMajor<float>& c) {
  for (std::size_t i = 0; i < of.size; i += kStep) {
    const std::size_t rows = smaller(kStep, of.size - i);
    const std::size_t from = of.upper ? i : 0;
    const std::size_t to = of.upper ? of.size : i + rows;
    multiply(
        {rows, of.cols, to - from},
        {a.data + i * a.row + from * a.step, a.row, a.step},
        {b.data + from * b.stride, b.stride},
        {c.data + i * c.stride, c.stride},
        true);
  }
}

// row *= factor, of whole vectors.
HWY_INLINE void scale_to(
    const float* from, std::size_t width, float factor, float* to) {
  const V f = hn::Set(D(), factor);
  for (std::size_t i = 0; i < width; i += hn::Lanes(D())) {
    hn::StoreU(hn::Mul(f, hn::LoadU(D(), from + i)), D(), to + i);
  }
}

// to += factor · from.
HWY_INLINE void add_scaled(
    const float* from, std::size_t width, float factor, float* to) {
  const V f = hn::Set(D(), factor);
  for (std::size_t i = 0; i < width; i += hn::Lanes(D())) {
    const V sum =
        hn::MulAdd(f, hn::LoadU(D(), from + i), hn::LoadU(D(), to + i));
    hn::StoreU(sum, D(), to + i);
  }
}

HWY_INLINE float dot(const float* a, const float* b, std::size_t width) {
  return sum_row(width, [&](V sum, std::size_t i, auto part) HWY_ATTR {
    return hn::MulAdd(load(a + i, part), load(b + i, part), sum);
  });
}

// Rows as they are or, where the rule wants it, of length 1; what each was
// scaled by is kept in `scales` where it is wanted.
struct UnitRows {
  bool unit;
  float eps, factor;
};

inline void copy_rows(
    const Source& from,
    const UnitRows& how,
    std::size_t stride,
    float* to,
    float* scales) {
  const std::size_t width = whole_vectors(from.cols);
  for (std::size_t r = 0; r < from.rows; ++r) {
    const float* x = from.data + r * from.stride;
    float* const row = to + r * stride;
    const float scale =
        how.unit ? 1.0f / __builtin_sqrtf(dot(x, x, from.cols) + how.eps)
                 : 1.0f;
    if (scales != nullptr) scales[r] = scale;
    fill(row + from.cols, width - from.cols, 0.0f);
    const V f = hn::Set(D(), scale * how.factor);
    for_row(from.cols, [&](std::size_t i, auto part) HWY_ATTR {
      store(hn::Mul(f, load(x + i, part)), row + i, part);
    });
  }
}

HWY_INLINE void write_row(const float* from, std::size_t n, float* to) {
  for_row(n, [&](std::size_t c, auto part) HWY_ATTR {
    store(load(from + c, part), to + c, part);
  });
}

}  // namespace fettle::kernels::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#endif
