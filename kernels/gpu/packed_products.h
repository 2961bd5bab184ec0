// SPDX-License-Identifier: Apache-2.0
// Two ways to multiply by packed matrices: one for matrices of whole strips
// (packed_strip.h), which nearly all are, and a slow one for all others.
#pragma once

#include "kernels/gpu/packed_eight.h"
#include "kernels/gpu/row.h"

namespace fettle::kernels::gpu {

inline constexpr int kProductThreads = 256;

// One product of a launch.
struct ProductItem {
  PackedArgs matrix;
  Groups groups;
  std::int64_t n;
  const void* x;
  void* y;
  std::int64_t x_stride, y_stride;
  std::int64_t first_block = 0;  // of the launch
};

// Descriptors travel as an argument, for which there is room for 4 KB.
inline constexpr int kMostProductItems = 16;

struct ProductBatch {
  ProductItem items[kMostProductItems];
  int count;
  std::int64_t blocks, n;  // of all, and the largest

  // Of `rows` rows each, none of two items.
  void deal_blocks(int rows) {
    blocks = 0;
    for (int i = 0; i < count; ++i) {
      items[i].first_block = blocks;
      blocks += blocks_for(items[i].matrix.rows, rows);
    }
  }
  // The item of this block.
  __device__ const ProductItem& mine() const {
    int i = 0;
    while (i + 1 < count && blockIdx.x >= items[i + 1].first_block) ++i;
    return items[i];
  }
};
static_assert(sizeof(ProductBatch) < 4096);

// The bits of codes that the fast way is made for, or -1.
int strip_bits(const PackedArgs& matrix);

// Queues a batch, all of `bits`.
void multiply_strips(ProductBatch batch, int bits, DType dtype, Stream stream);

// Queues a batch of any.
void multiply_eights(ProductBatch batch, DType dtype, Stream stream);

}  // namespace fettle::kernels::gpu
