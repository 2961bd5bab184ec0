// SPDX-License-Identifier: Apache-2.0
// Products with packed matrices, by batches that are multiplied in one way, and
// the way that any matrix takes: a warp a row, a lane eight columns, each
// weight as it is defined.
#include "kernels/gpu/gpu.h"
#include "kernels/gpu/packed_products.h"
#include "kernels/gpu/row.h"
#include "kernels/gpu/trit_code.h"

#include <algorithm>

namespace fettle::kernels::gpu {
namespace {

constexpr int kAtOnce = 4;      // rows of x
constexpr int kBlockRows = 32;  // of the matrix

// A thread's part of the sums of one row of the matrix and kAtOnce rows of x.
template <class T, int kBits>
__device__ inline void add_eights(
    const ProductItem& item,
    std::int64_t row,
    std::int64_t first,
    const std::uint32_t* table,
    float (&sums)[kAtOnce]) {
  const PackedArgs& m = item.matrix;
  const auto cols = static_cast<std::uint32_t>(m.cols);
  const std::uint32_t eights = (cols + 7) / 8;
  std::uint32_t eight = threadIdx.x % warpSize;
  for (; eight < eights; eight += warpSize) {
    const std::uint64_t codes = eight_codes<kBits>(m, row, eight, false, table);
    float w[8];
    eight_weights<kBits>(m, item.groups, row, eight, codes, w);
    const std::uint32_t left = cols - 8 * eight;
    for (int r = 0; r < kAtOnce && first + r < item.n; ++r) {
      const T* x = static_cast<const T*>(item.x) + (first + r) * item.x_stride +
                   std::size_t{8} * eight;
#pragma unroll
      for (std::uint32_t j = 0; j < 8; ++j) {
        if (j < left) sums[r] += w[j] * to_float(x[j]);
      }
    }
  }
}

template <class T>
__device__ inline void multiply_row(
    const ProductItem& item,
    std::int64_t row,
    std::int64_t first,
    const std::uint32_t* table) {
  float sums[kAtOnce] = {};
  const PackedArgs& m = item.matrix;
  switch (m.kind == PackedKind::kInt ? m.bits : kTrits) {
    case 2:
      add_eights<T, 2>(item, row, first, table, sums);
      break;
    case 3:
      add_eights<T, 3>(item, row, first, table, sums);
      break;
    case 4:
      add_eights<T, 4>(item, row, first, table, sums);
      break;
    case 8:
      add_eights<T, 8>(item, row, first, table, sums);
      break;
    default:
      add_eights<T, kTrits>(item, row, first, table, sums);
  }
#pragma unroll
  for (int r = 0; r < kAtOnce; ++r) {
    const float sum = over_warp<Sum>(sums[r]);
    if (threadIdx.x % warpSize == 0 && first + r < item.n) {
      T* y = static_cast<T*>(item.y);
      y[(first + r) * item.y_stride + row] = from_float<T>(sum);
    }
  }
}

template <class T>
__global__ void __launch_bounds__(kProductThreads)
    multiply_any(const ProductBatch batch) {
  __shared__ std::uint32_t table[kTritBytes];
  make_trit_table<kProductThreads>(table);
  const ProductItem& item = batch.mine();
  const std::int64_t first = static_cast<std::int64_t>(blockIdx.y) * kAtOnce;
  if (first >= item.n) return;
  const int warp = threadIdx.x / warpSize, warps = kProductThreads / warpSize;
  const std::int64_t begin = (blockIdx.x - item.first_block) * kBlockRows;
  for (int i = warp; i < kBlockRows; i += warps) {
    if (begin + i >= item.matrix.rows) return;
    multiply_row<T>(item, begin + i, first, table);
  }
}

void append(ProductBatch& batch, const PackedProductArgs& p) {
  batch.items[batch.count++] = {
      .matrix = p.matrix,
      .groups = groups_of(p.matrix),
      .n = p.n,
      .x = p.x,
      .y = p.y,
      .x_stride = p.x_stride,
      .y_stride = p.y_stride};
  batch.n = std::max(batch.n, p.n);
}

// The products whose strip_bits are `bits`.
void multiply_those_of(const PackedProductsArgs& a, int bits, Stream s) {
  ProductBatch batch{};
  const auto flush = [&] {
    if (batch.count == 0) return;
    if (bits < 0) {
      multiply_eights(batch, a.dtype, s);
    } else {
      multiply_strips(batch, bits, a.dtype, s);
    }
    batch = {};
  };
  for (std::int64_t i = 0; i < a.count; ++i) {
    const PackedProductArgs& p = a.products[i];
    if (p.n == 0 || p.matrix.rows == 0) continue;
    if (is_trit_code(p.matrix.kind) || strip_bits(p.matrix) != bits) continue;
    append(batch, p);
    if (batch.count == kMostProductItems) flush();
  }
  flush();
}

}  // namespace

void multiply_eights(ProductBatch batch, DType dtype, Stream s) {
  batch.deal_blocks(kBlockRows);
  with_type(dtype, [&](auto type) {
    const dim3 grid(
        static_cast<unsigned>(batch.blocks), blocks_for(batch.n, kAtOnce));
    launch(multiply_any<decltype(type)>, grid, kProductThreads, s, batch);
  });
}

const char* packed_products(const PackedProductsArgs& a, void* stream) {
  for (std::int64_t i = 0; i < a.count; ++i) {
    if (a.products[i].matrix.cols >= kMostPackedCols) return kTooManyPackedCols;
  }
  for (const int bits : {-1, kTrits, 2, 3, 4, 8}) {
    multiply_those_of(a, bits, static_cast<Stream>(stream));
  }
  return trit_products(a, stream);
}

}  // namespace fettle::kernels::gpu
