// SPDX-License-Identifier: Apache-2.0
// Codes of four bits meet x as they lie where the processor can do that
// (packed_nibbles-inl.h). Else some rows of a matrix are unpacked to bytes,
// which then meet all rows of x.
#include <algorithm>
#include <span>
#include <utility>
#include <vector>

#include "kernels/cpu/packed.h"
#include "kernels/cpu/product_rows.h"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "kernels/cpu/packed_products.cpp"
#include <hwy/foreach_target.h>
#include <hwy/highway.h>

#include "kernels/cpu/packed_nibbles-inl.h"
#include "kernels/cpu/packed_row-inl.h"

#ifndef FETTLE_KERNELS_CPU_PRODUCT_SCRATCH
#define FETTLE_KERNELS_CPU_PRODUCT_SCRATCH
namespace fettle::kernels {

// A thread's memory during one call.
struct ProductScratch {
  cpu::CodesMemory codes;
  std::vector<float> x;  // rows of x in the order of lanes
  // Which they are.
  const void* x_of = nullptr;
  std::int64_t x_rows = 0, x_cols = 0, x_stride = 0;
};

}  // namespace fettle::kernels
#endif

HWY_BEFORE_NAMESPACE();
namespace fettle::kernels::HWY_NAMESPACE {

// Rows of the matrix that share the loads of x: as many as have registers for
// their sums with four rows of x.
inline constexpr int kRows =
    HWY_TARGET == HWY_AVX2 || HWY_TARGET == HWY_SSE4 ? 2 : 4;

// Unpacked rows of a matrix, from `row` on, and the rows of x that they meet.
struct Meeting {
  const PackedArgs& matrix;
  std::int64_t row;
  const std::int8_t* codes;
  std::int64_t codes_stride;
  const float* x;
  std::int64_t x_stride;
};

// `count` values of `left` that the row still has; zeros behind them.
HWY_INLINE V load_few(const float* p, std::size_t count, std::size_t left) {
  const D d;
  if (count >= hn::Lanes(d)) return load(p, Whole{});
  if (left < hn::Lanes(d)) return load(p, Part{count});
  return hn::IfThenElseZero(hn::FirstN(d, count), load(p, Whole{}));
}

// Adds the part of group `g` to the sums of R rows and N rows of x. However
// many rows there are, a group's sum is scaled, not its weights: a row of x
// comes out in the same bits alone and beside others.
template <int R, int N, bool kZeros>
HWY_INLINE void add_group(const Meeting& m, std::int64_t g, V (&sums)[R][N]) {
  const D d;
  const std::size_t lanes = hn::Lanes(d), cols = m.matrix.cols;
  const std::size_t begin = g * m.matrix.group, size = m.matrix.group;
  const std::size_t end = cols - begin < size ? cols : begin + size;
  V part[R][N], scale[R];
  hn::Vec<Ints> zero[R];
  for (int q = 0; q < R; ++q) {
    const GroupScale by = group_scale(m.matrix, m.row + q, g);
    scale[q] = hn::Set(d, by.scale);
    zero[q] = hn::Set(Ints(), by.zero);
    for (int r = 0; r < N; ++r) part[q][r] = hn::Zero(d);
  }
  const auto add = [&](std::size_t i, auto load_x) HWY_ATTR {
    V x[N];
    for (int r = 0; r < N; ++r) x[r] = load_x(m.x + r * m.x_stride + i);
    for (int q = 0; q < R; ++q) {
      const V w = numbers<kZeros>(m.codes + q * m.codes_stride + i, zero[q]);
      for (int r = 0; r < N; ++r) part[q][r] = hn::MulAdd(w, x[r], part[q][r]);
    }
  };
  std::size_t i = begin;
  for (; i + lanes <= end; i += lanes) {
    add(i, [](const float* p) HWY_ATTR { return load(p, Whole{}); });
  }
  if (i < end) {
    add(i, [&](const float* p) HWY_ATTR {
      return load_few(p, end - i, cols - i);
    });
  }
  for (int q = 0; q < R; ++q) {
    for (int r = 0; r < N; ++r) {
      sums[q][r] = hn::MulAdd(scale[q], part[q][r], sums[q][r]);
    }
  }
}

template <int R, int N>
void meet(const Meeting& m, float* y, std::int64_t y_stride) {
  sum_groups<R, N>(
      m.matrix,
      [&]<bool kZeros>(std::int64_t g, V(&sums)[R][N])
          HWY_ATTR { add_group<R, N, kZeros>(m, g, sums); },
      y,
      y_stride);
}

template <int R>
bool multiply_rows(
    const PackedProductArgs& p, std::int64_t row, std::int8_t* codes) {
  const std::int64_t stride = p.matrix.cols + cpu::kBehindCodes;
  for (int q = 0; q < R; ++q) {
    if (!row_codes(p.matrix, row + q, codes + q * stride)) return false;
  }
  const auto* x = static_cast<const float*>(p.x);
  float* y = static_cast<float*>(p.y) + row;
  meet_rows_of_x<R>(p.n, [&]<int Q, int N>(int q, std::int64_t i) HWY_ATTR {
    meet<Q, N>(
        {p.matrix,
         row + q,
         codes + q * stride,
         stride,
         x + i * p.x_stride,
         p.x_stride},
        y + i * p.y_stride + q,
        p.y_stride);
  });
  return true;
}

#if HWY_TARGET == HWY_AVX3
// Many products take the same x, one after the other.
void keep_in_lanes(const PackedProductArgs& p, ProductScratch& scratch) {
  const std::int64_t cols = p.matrix.cols;
  if (scratch.x_of == p.x && scratch.x_rows == p.n && scratch.x_cols == cols &&
      scratch.x_stride == p.x_stride) {
    return;
  }
  scratch.x.resize(static_cast<std::size_t>(p.n * cols));
  for (std::int64_t n = 0; n < p.n; ++n) {
    to_lanes(
        static_cast<const float*>(p.x) + n * p.x_stride,
        cols,
        scratch.x.data() + n * cols);
  }
  scratch.x_of = p.x, scratch.x_stride = p.x_stride;
  scratch.x_rows = p.n, scratch.x_cols = cols;
}

void multiply_as_they_lie(
    const PackedProductArgs& p,
    std::int64_t begin,
    std::int64_t end,
    ProductScratch& scratch) {
  keep_in_lanes(p, scratch);
  Nibbles m{p.matrix, begin, scratch.x.data(), p.matrix.cols};
  float* y = static_cast<float*>(p.y);
  for (; m.row + kRows <= end; m.row += kRows) {
    multiply_nibbles<kRows>(m, p.n, y + m.row, p.y_stride);
  }
  for (; m.row < end; ++m.row) {
    multiply_nibbles<1>(m, p.n, y + m.row, p.y_stride);
  }
}
#endif

bool ProductRows(
    const PackedProductArgs& p,
    std::int64_t begin,
    std::int64_t end,
    ProductScratch& scratch) {
#if HWY_TARGET == HWY_AVX3
  if (lies_in_nibbles(p.matrix)) {
    multiply_as_they_lie(p, begin, end, scratch);
    return true;
  }
#endif
  std::int8_t* codes = scratch.codes.get();
  std::int64_t row = begin;
  for (; row + kRows <= end; row += kRows) {
    if (!multiply_rows<kRows>(p, row, codes)) return false;
  }
  for (; row < end; ++row) {
    if (!multiply_rows<1>(p, row, codes)) return false;
  }
  return true;
}

}  // namespace fettle::kernels::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace fettle::kernels {
namespace {

HWY_EXPORT(ProductRows);

constexpr std::int64_t kMostRows = 4;  // no less than kRows

// Unpacking a weight takes about as long as two products with it.
std::int64_t row_work(const PackedProductArgs& p) {
  return p.matrix.cols * (p.n + 2) + 1;
}

std::span<const PackedProductArgs> products_of(const PackedProductsArgs& args) {
  return {args.products, static_cast<std::size_t>(args.count)};
}

// Makes a thread's own product of rows.
auto maker(std::span<const PackedProductArgs> products) {
  std::int64_t cols = 0;
  for (const PackedProductArgs& p : products) {
    cols = std::max(cols, p.matrix.cols);
  }
  return [cols] {
    ProductScratch scratch;
    scratch.codes = cpu::memory_for_codes(cols, kMostRows);
    return [scratch = std::move(scratch)](
               const auto& p, std::int64_t first, std::int64_t last) mutable {
      return HWY_DYNAMIC_DISPATCH(ProductRows)(p, first, last, scratch);
    };
  };
}

}  // namespace

bool cpu::packed_products(const PackedProductsArgs& args) {
  const std::span products = products_of(args);
  return multiply_all_rows(products, 1, row_work, maker(products));
}

bool cpu::share_of_packed_products(
    const PackedProductsArgs& args, const Share& share) {
  const std::span products = products_of(args);
  return multiply_share(products, 1, row_work, maker(products), share);
}

}  // namespace fettle::kernels
#endif
