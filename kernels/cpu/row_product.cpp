// SPDX-License-Identifier: Apache-2.0
// Tiles of some columns and some rows share their loads; however they are cut,
// each value is summed alike.
#include "kernels/cpu/decoding.h"
#include "kernels/cpu/parallel.h"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "kernels/cpu/row_product.cpp"
#include <hwy/foreach_target.h>
#include <hwy/highway.h>

#include "kernels/cpu/vec-inl.h"

HWY_BEFORE_NAMESPACE();
namespace fettle::kernels::HWY_NAMESPACE {

// Columns [column, column + C) of N rows from `row` on, where w's columns are
// contiguous: by lanes of a vector.
template <class T, int C, int N>
HWY_INLINE void dot_tile(
    const RowProductArgs& p, std::int64_t row, std::int64_t column) {
  V sums[C][N];
  for (int c = 0; c < C; ++c) {
    for (int n = 0; n < N; ++n) sums[c][n] = hn::Zero(D());
  }
  const float* x = p.x + row * p.x_stride;
  const T* w = static_cast<const T*>(p.w) + column * p.w_stride;
  for_row(p.inner, [&](std::size_t i, auto part) HWY_ATTR {
    V values[N];
    for (int n = 0; n < N; ++n) values[n] = load(x + n * p.x_stride + i, part);
    for (int c = 0; c < C; ++c) {
      const V weight = load(w + c * p.w_stride + i, part);
      for (int n = 0; n < N; ++n) {
        sums[c][n] = hn::MulAdd(weight, values[n], sums[c][n]);
      }
    }
  });
  for (int c = 0; c < C; ++c) {
    for (int n = 0; n < N; ++n) {
      p.y[(row + n) * p.y_stride + column + c] =
          hn::GetLane(hn::SumOfLanes(D(), sums[c][n]));
    }
  }
}

// C vectors of columns from `column` on, of N rows, where w's rows are
// contiguous: token by token of the inner dimension.
template <class T, int C, int N, class Size>
HWY_INLINE void mix_tile(
    const RowProductArgs& p, std::int64_t row, std::int64_t column, Size size) {
  const std::size_t lanes = hn::Lanes(D());
  V sums[C][N];
  for (int c = 0; c < C; ++c) {
    for (int n = 0; n < N; ++n) sums[c][n] = hn::Zero(D());
  }
  const float* x = p.x + row * p.x_stride;
  const T* w = static_cast<const T*>(p.w) + column;
  for (std::int64_t k = 0; k < p.inner; ++k) {
    V weights[C];
    for (int c = 0; c < C; ++c) {
      weights[c] = load(w + k * p.w_stride + c * lanes, size);
    }
    for (int n = 0; n < N; ++n) {
      const V value = hn::Set(D(), x[n * p.x_stride + k]);
      for (int c = 0; c < C; ++c) {
        sums[c][n] = hn::MulAdd(weights[c], value, sums[c][n]);
      }
    }
  }
  for (int c = 0; c < C; ++c) {
    for (int n = 0; n < N; ++n) {
      store(
          sums[c][n], p.y + (row + n) * p.y_stride + column + c * lanes, size);
    }
  }
}

template <class T, int C, int N>
void dot_columns(
    const RowProductArgs& p,
    std::int64_t row,
    std::int64_t begin,
    std::int64_t end) {
  for (; begin + C <= end; begin += C) dot_tile<T, C, N>(p, row, begin);
  for (; begin < end; ++begin) dot_tile<T, 1, N>(p, row, begin);
}

template <class T, int C, int N>
void mix_columns(
    const RowProductArgs& p,
    std::int64_t row,
    std::int64_t begin,
    std::int64_t end) {
  const auto lanes = static_cast<std::int64_t>(hn::Lanes(D()));
  for (; begin + C * lanes <= end; begin += C * lanes) {
    mix_tile<T, C, N>(p, row, begin, Whole{});
  }
  for (; begin + lanes <= end; begin += lanes) {
    mix_tile<T, 1, N>(p, row, begin, Whole{});
  }
  if (begin < end) {
    mix_tile<T, 1, N>(
        p, row, begin, Part{static_cast<std::size_t>(end - begin)});
  }
}

template <class T>
void columns(const RowProductArgs& p, std::int64_t begin, std::int64_t end) {
  std::int64_t row = 0;
  for (; row + 4 <= p.rows; row += 4) {
    p.turned ? dot_columns<T, 4, 4>(p, row, begin, end)
             : mix_columns<T, 4, 4>(p, row, begin, end);
  }
  for (; row + 2 <= p.rows; row += 2) {
    p.turned ? dot_columns<T, 4, 2>(p, row, begin, end)
             : mix_columns<T, 4, 2>(p, row, begin, end);
  }
  for (; row < p.rows; ++row) {
    p.turned ? dot_columns<T, 8, 1>(p, row, begin, end)
             : mix_columns<T, 8, 1>(p, row, begin, end);
  }
}

void Columns(const RowProductArgs& p, std::int64_t begin, std::int64_t end) {
  p.w_type == DType::kFloat32 ? columns<float>(p, begin, end)
                              : columns<Bf16>(p, begin, end);
}

}  // namespace fettle::kernels::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace fettle::kernels {

HWY_EXPORT(Columns);

void cpu::row_product(const RowProductArgs& args) {
  // A cache line of columns is one thread's.
  constexpr std::int64_t kLine = 16;
  const std::int64_t lines = (args.columns + kLine - 1) / kLine;
  parallel_rows(lines, kLine * args.inner, [&](auto begin, auto end) {
    const std::int64_t last = end * kLine;
    HWY_DYNAMIC_DISPATCH(Columns)
    (args, begin * kLine, last < args.columns ? last : args.columns);
  });
}

}  // namespace fettle::kernels
#endif
