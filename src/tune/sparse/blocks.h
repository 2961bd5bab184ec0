// SPDX-License-Identifier: Apache-2.0
// A matrix as a grid of blocks, some of which are trained. Blocks are numbered
// along rows of blocks; where the block's sides don't divide the matrix's, the
// last blocks reach over its edge, and what lies outside is 0.
#pragma once

#include <ATen/ATen.h>

#include <cstdint>

namespace fettle::tune {

struct BlockShape {
  std::int64_t rows = 0;
  std::int64_t cols = 0;

  std::int64_t size() const { return rows * cols; }
};

struct BlockGrid {
  std::int64_t rows = 0;  // of the matrix
  std::int64_t cols = 0;
  BlockShape block;

  std::int64_t down() const { return (rows + block.rows - 1) / block.rows; }
  std::int64_t across() const { return (cols + block.cols - 1) / block.cols; }
  std::int64_t count() const { return down() * across(); }
};

// Blocks `ids` [n] int64 (on the matrix's device, ascending) of `matrix`
// [rows, cols]: [n, size of a block], rows of a block one after another.
at::Tensor gather_blocks(
    const BlockGrid& grid, const at::Tensor& matrix, const at::Tensor& ids);

// Puts `values` [n, size of a block] in their places; what lies outside the
// matrix is left out. `matrix` may be any view, of any floating type.
void scatter_blocks_(
    const BlockGrid& grid,
    at::Tensor matrix,
    const at::Tensor& ids,
    const at::Tensor& values);

// How many values of blocks `ids` reach over the matrix's edges.
std::int64_t outside(const BlockGrid& grid, const at::Tensor& ids);

// Sums of all blocks of `matrix`: [count] fp32.
at::Tensor block_sums(const BlockGrid& grid, const at::Tensor& matrix);

// Adds blocks `ids` of leftᵀ right to `into` [n, size of a block] fp32. left:
// [t, rows], right: [t, cols]. Only the rows of blocks that hold one are
// multiplied, each with the columns that it needs.
void add_product_blocks_(
    const BlockGrid& grid,
    const at::Tensor& left,
    const at::Tensor& right,
    const at::Tensor& ids,
    at::Tensor into);

}  // namespace fettle::tune
