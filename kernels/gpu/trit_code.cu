// SPDX-License-Identifier: Apache-2.0
// A warp takes a row, and a block's rows share the code's table. Few trits are
// not 0, and x is read only where they are.
#include "kernels/gpu/trit_code.h"

#include <algorithm>
#include <type_traits>

#include "kernels/gpu/packed_products.h"
#include "kernels/gpu/row.h"
#include "kernels/gpu/trit_decode.h"

namespace fettle::kernels::gpu {
namespace {

constexpr int kBlockRows = 32;  // enough to make up for loading the table

constexpr int kMostTritItems = 16;

// Travels as an argument, for which there is room for 4 KB.
struct TritBatch {
  ProductItem items[kMostTritItems];
  int count;
  std::int64_t blocks, n;  // of all, and the largest
};
static_assert(sizeof(TritBatch) < 4096);

// Rows of a block are dealt out to its warps, more of 32 than of 64.
template <class F>
__device__ void each_block_row(
    std::int64_t block, std::int64_t rows, const F& f) {
  const int warp = threadIdx.x / warpSize, warps = kTritThreads / warpSize;
  for (int i = warp; i < kBlockRows; i += warps) {
    const std::int64_t row = block * kBlockRows + i;
    if (row < rows) f(row);
  }
}

// Zeros times their scales, as the CPU has them. `even`: eight columns are of
// one group, and are stored 16 bytes at a time.
template <class T>
__device__ inline void write_zeros(
    const PackedArgs& m,
    const Groups& groups,
    bool even,
    std::int64_t row,
    T* out) {
  const auto cols = static_cast<std::uint32_t>(m.cols);
  const std::int64_t scales = row * m.groups;
  const std::uint32_t width = even ? 8 : 1;
  std::uint32_t col = threadIdx.x % warpSize * width;
  for (; col < cols; col += warpSize * width) {
    const float zero = 0.0f * scale_at(m, scales + groups.of(col));
    if (even) {
      constexpr int kStored = kWide<T>;
      float zeros[kStored];
#pragma unroll
      for (int j = 0; j < kStored; ++j) zeros[j] = zero;
#pragma unroll
      for (int j = 0; j < 8; j += kStored) store<kStored>(zeros, out + col + j);
    } else {
      out[col] = from_float<T>(zero);
    }
  }
}

template <class T, class Code>
__global__ void unpack_trits(
    const UnpackRowsArgs a, const Groups groups, bool even) {
  __shared__ std::uint64_t table[Code::kEntries];
  const PackedArgs& m = a.matrix;
  const int lane = threadIdx.x % warpSize;
  each_block_row(blockIdx.x, a.rows, [&](std::int64_t r) {
    T* out = static_cast<T*>(a.out) + r * a.stride;
    write_zeros(m, groups, even, a.first + r, out);
  });
  load_table<Code>(m, table);  // its barrier is for what was written, too
  each_block_row(blockIdx.x, a.rows, [&](std::int64_t r) {
    T* out = static_cast<T*>(a.out) + r * a.stride;
    const std::int64_t row = a.first + r;
    const auto cols = static_cast<std::uint32_t>(m.cols);
    const bool sound =
        each_word<Code>(m, row, table, [&](std::int64_t col, Word word) {
          word.each(
              static_cast<std::uint32_t>(col),
              cols,
              [&](std::uint32_t c, float sign) {
                const std::int64_t group = row * m.groups + groups.of(c);
                out[c] = from_float<T>(sign * scale_at(m, group));
              });
        });
    if (sound) return;
    __threadfence_block();
    for (std::int64_t c = lane; c < m.cols; c += warpSize) {
      out[c] = from_float<T>(NAN);
    }
  });
}

// A word's part of the sums, one scale for as much of it as is of one group.
template <class T, int N>
__device__ inline void add_word(
    const ProductItem& item,
    std::int64_t row,
    std::int64_t first,
    std::uint32_t col,
    Word word,
    float (&sums)[N]) {
  const PackedArgs& m = item.matrix;
  const auto* x = static_cast<const T*>(item.x) + first * item.x_stride;
  float scale = 0.0f, part[N] = {};
  std::uint32_t group_end = 0;
  const auto add_part = [&] {
#pragma unroll
    for (int r = 0; r < N; ++r) sums[r] += scale * part[r];
  };
  word.each(
      col,
      static_cast<std::uint32_t>(m.cols),
      [&](std::uint32_t c, float sign) {
        if (c >= group_end) {
          add_part();
          const std::uint32_t group = item.groups.of(c);
          group_end =
              (group + 1) * static_cast<std::uint32_t>(item.groups.size);
          scale = scale_at(m, row * m.groups + group);
#pragma unroll
          for (int r = 0; r < N; ++r) part[r] = 0.0f;
        }
#pragma unroll
        for (int r = 0; r < N; ++r) {
          if (first + r < item.n) {
            part[r] += sign * to_float(x[r * item.x_stride + c]);
          }
        }
      });
  add_part();
}

template <class T, int N, class Code>
__device__ inline void multiply_trit_row(
    const ProductItem& item,
    std::int64_t row,
    std::int64_t first,
    const std::uint64_t* table) {
  const PackedArgs& m = item.matrix;
  float sums[N] = {};
  const bool sound =
      each_word<Code>(m, row, table, [&](std::int64_t col, Word word) {
        add_word<T>(
            item, row, first, static_cast<std::uint32_t>(col), word, sums);
      });
#pragma unroll
  for (int r = 0; r < N; ++r) {
    const float sum = over_warp<Sum>(sums[r]);
    if (threadIdx.x % warpSize == 0 && first + r < item.n) {
      T* y = static_cast<T*>(item.y);
      y[(first + r) * item.y_stride + row] = from_float<T>(sound ? sum : NAN);
    }
  }
}

template <class T, int N, class Code>
__global__ void multiply_trits(const TritBatch batch) {
  __shared__ std::uint64_t table[Code::kEntries];
  int i = 0;
  while (i + 1 < batch.count && blockIdx.x >= batch.items[i + 1].first_block) {
    ++i;
  }
  const ProductItem& item = batch.items[i];
  const std::int64_t first = static_cast<std::int64_t>(blockIdx.y) * N;
  if (first >= item.n) return;
  load_table<Code>(item.matrix, table);
  each_block_row(
      blockIdx.x - item.first_block, item.matrix.rows, [&](std::int64_t row) {
        multiply_trit_row<T, N, Code>(item, row, first, table);
      });
}

template <class T, class Code>
void run(const TritBatch& batch, Stream s) {
  const auto start = [&](auto count) {
    constexpr int N = decltype(count)::value;
    const dim3 grid(
        static_cast<unsigned>(batch.blocks), blocks_for(batch.n, N));
    launch(multiply_trits<T, N, Code>, grid, kTritThreads, s, batch);
  };
  if (batch.n <= 1) {
    start(std::integral_constant<int, 1>());
  } else if (batch.n <= 2) {
    start(std::integral_constant<int, 2>());
  } else if (batch.n <= 4) {
    start(std::integral_constant<int, 4>());
  } else {
    start(std::integral_constant<int, 8>());
  }
}

template <class T, class Code>
void run_kind(const PackedProductsArgs& a, PackedKind kind, Stream s) {
  TritBatch batch{};
  const auto flush = [&] {
    if (batch.count > 0) run<T, Code>(batch, s);
    batch = {};
  };
  for (std::int64_t i = 0; i < a.count; ++i) {
    const PackedProductArgs& p = a.products[i];
    if (p.matrix.kind != kind || p.n == 0 || p.matrix.rows == 0) continue;
    batch.items[batch.count++] = {
        .matrix = p.matrix,
        .groups = groups_of(p.matrix),
        .n = p.n,
        .x = p.x,
        .y = p.y,
        .x_stride = p.x_stride,
        .y_stride = p.y_stride,
        .first_block = batch.blocks};
    batch.blocks += blocks_for(p.matrix.rows, kBlockRows);
    batch.n = std::max(batch.n, p.n);
    if (batch.count == kMostTritItems) flush();
  }
  flush();
}

}  // namespace

const char* unpack_trit_rows(const UnpackRowsArgs& a, void* stream) {
  with_type(a.dtype, [&](auto type) {
    using T = decltype(type);
    const auto s = static_cast<Stream>(stream);
    const unsigned blocks = blocks_for(a.rows, kBlockRows);
    const Groups groups = groups_of(a.matrix);
    const bool even = a.matrix.cols % 8 == 0 && groups.size % 8 == 0 &&
                      aligned16({a.out, 1, a.stride, 0}, sizeof(T));
    const auto kernel = a.matrix.kind == PackedKind::kTernaryWords
                            ? unpack_trits<T, FixedCode>
                            : unpack_trits<T, HuffmanCode>;
    launch(kernel, blocks, kTritThreads, s, a, groups, even);
  });
  return launch_result();
}

const char* trit_products(const PackedProductsArgs& a, void* stream) {
  with_type(a.dtype, [&](auto type) {
    using T = decltype(type);
    const auto s = static_cast<Stream>(stream);
    run_kind<T, FixedCode>(a, PackedKind::kTernaryWords, s);
    run_kind<T, HuffmanCode>(a, PackedKind::kTernaryHuffman, s);
  });
  return launch_result();
}

}  // namespace fettle::kernels::gpu
