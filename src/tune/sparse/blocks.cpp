// SPDX-License-Identifier: Apache-2.0
#include "tune/sparse/blocks.h"

#include <algorithm>
#include <span>

#include "core/error.h"

namespace fettle::tune {

namespace {

using at::indexing::TensorIndex;

// Rows [n, r, 1] and columns [n, 1, c] of every value of blocks.
struct Places {
  at::Tensor rows;
  at::Tensor cols;
};

Places places_of(const BlockGrid& grid, const at::Tensor& ids) {
  const auto options = ids.options();
  const at::Tensor row = at::floor_divide(ids, grid.across());
  const at::Tensor col = ids - row * grid.across();
  return {
      (row * grid.block.rows).view({-1, 1, 1}) +
          at::arange(grid.block.rows, options).view({1, -1, 1}),
      (col * grid.block.cols).view({-1, 1, 1}) +
          at::arange(grid.block.cols, options).view({1, 1, -1})};
}

bool fits(const BlockGrid& grid) {
  return grid.rows % grid.block.rows == 0 && grid.cols % grid.block.cols == 0;
}

// Which values of blocks [n, r, c] lie in the matrix.
at::Tensor inside(const BlockGrid& grid, const Places& places) {
  return places.rows.lt(grid.rows).logical_and(places.cols.lt(grid.cols));
}

// Below this many products of a block's row the gathered product is slower than
// that of the whole matrices.
constexpr std::int64_t kLeastRows = 8;

}  // namespace

at::Tensor gather_blocks(
    const BlockGrid& grid, const at::Tensor& matrix, const at::Tensor& ids) {
  Places places = places_of(grid, ids);
  const std::int64_t n = ids.size(0);
  if (fits(grid)) {
    return matrix.index({places.rows, places.cols})
        .reshape({n, grid.block.size()});
  }
  const at::Tensor in = inside(grid, places);
  places.rows.clamp_max_(grid.rows - 1);
  places.cols.clamp_max_(grid.cols - 1);
  return matrix.index({places.rows, places.cols})
      .masked_fill(in.logical_not(), 0.0)
      .reshape({n, grid.block.size()});
}

void scatter_blocks_(
    const BlockGrid& grid,
    at::Tensor matrix,
    const at::Tensor& ids,
    const at::Tensor& values) {
  if (ids.size(0) == 0) return;
  const at::NoGradGuard no_grad;
  const Places places = places_of(grid, ids);
  const at::Tensor typed =
      values.to(matrix.scalar_type())
          .view({ids.size(0), grid.block.rows, grid.block.cols});
  if (fits(grid)) {
    matrix.index_put_({places.rows, places.cols}, typed);
    return;
  }
  const at::Tensor in = inside(grid, places);
  matrix.index_put_(
      {places.rows.expand_as(in).masked_select(in),
       places.cols.expand_as(in).masked_select(in)},
      typed.masked_select(in));
}

std::int64_t outside(const BlockGrid& grid, const at::Tensor& ids) {
  if (fits(grid)) return 0;
  return inside(grid, places_of(grid, ids))
      .logical_not_()
      .sum()
      .item<std::int64_t>();
}

at::Tensor block_sums(const BlockGrid& grid, const at::Tensor& matrix) {
  const at::Tensor padded = at::constant_pad_nd(
      matrix.to(at::kFloat),
      {0,
       grid.across() * grid.block.cols - grid.cols,
       0,
       grid.down() * grid.block.rows - grid.rows});
  return padded
      .view({grid.down(), grid.block.rows, grid.across(), grid.block.cols})
      .sum(at::IntArrayRef({1, 3}))
      .flatten();
}

void add_product_blocks_(
    const BlockGrid& grid,
    const at::Tensor& left,
    const at::Tensor& right,
    const at::Tensor& ids,
    at::Tensor into) {
  if (ids.size(0) == 0) return;
  const at::NoGradGuard no_grad;
  const bool many = 2 * ids.size(0) > grid.count();
  if (many || grid.block.rows < kLeastRows) {
    into.add_(gather_blocks(grid, at::mm(left.t(), right), ids));
    return;
  }
  const at::Tensor on_host = ids.cpu();
  const std::span<const std::int64_t> all(
      on_host.const_data_ptr<std::int64_t>(),
      static_cast<std::size_t>(on_host.size(0)));
  const auto [rows, cols] = places_of(grid, ids);
  for (std::size_t first = 0; first < all.size();) {
    const std::int64_t row = all[first] / grid.across();
    std::size_t end = first;
    while (end < all.size() && all[end] / grid.across() == row) ++end;
    const auto begin = static_cast<std::int64_t>(first);
    const auto count = static_cast<std::int64_t>(end - first);
    const std::int64_t top = row * grid.block.rows;
    const std::int64_t height = std::min(grid.block.rows, grid.rows - top);
    // A column past the edge is some column, whose product is then dropped.
    const at::Tensor wanted = cols.narrow(0, begin, count).flatten();
    const at::Tensor product =
        at::mm(
            left.narrow(1, top, height).t(),
            right.index_select(1, wanted.clamp_max(grid.cols - 1)))
            .mul_(wanted.lt(grid.cols))
            .view({height, count, grid.block.cols})
            .transpose(0, 1);
    into.narrow(0, begin, count)
        .view({count, grid.block.rows, grid.block.cols})
        .narrow(1, 0, height)
        .add_(product);
    first = end;
  }
}

}  // namespace fettle::tune
