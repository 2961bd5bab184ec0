// SPDX-License-Identifier: Apache-2.0
#include "tune/sparse/blocks.h"

#include <catch2/catch.hpp>

using namespace fettle::tune;

namespace {

at::Tensor ids(std::vector<std::int64_t> values) {
  return at::tensor(values, at::kLong);
}

}  // namespace

TEST_CASE("a block that reaches over the edge is filled up with zeros") {
  // 3 x 5 in blocks of 2 x 2: two rows of three blocks.
  const BlockGrid grid{3, 5, {2, 2}};
  CHECK(grid.count() == 6);
  const at::Tensor matrix = at::arange(15, at::kFloat).view({3, 5});
  const at::Tensor blocks = gather_blocks(grid, matrix, ids({0, 2, 4, 5}));
  const at::Tensor expected = at::tensor(
      {0.F,
       1.F,
       5.F,
       6.F,
       4.F,
       0.F,
       9.F,
       0.F,
       12.F,
       13.F,
       0.F,
       0.F,
       14.F,
       0.F,
       0.F,
       0.F});
  CHECK(blocks.equal(expected.view({4, 4})));
}

TEST_CASE("blocks go back where they came from, and nowhere else") {
  for (const BlockGrid& grid :
       {BlockGrid{4, 6, {2, 3}},
        BlockGrid{5, 7, {2, 3}},
        BlockGrid{5, 7, {1, 1}},
        BlockGrid{3, 3, {8, 8}}}) {
    const at::Tensor matrix =
        at::arange(grid.rows * grid.cols, at::kFloat).view({grid.rows, -1});
    at::Tensor other = at::full_like(matrix, -1.0);
    const at::Tensor all = at::arange(grid.count(), at::kLong);
    scatter_blocks_(grid, other, all, gather_blocks(grid, matrix, all));
    CHECK(other.equal(matrix));

    // Into a transposed view, a single block: the rest stays.
    at::Tensor turned = at::full({grid.cols, grid.rows}, -1.0);
    const at::Tensor last = all.narrow(0, grid.count() - 1, 1);
    scatter_blocks_(grid, turned.t(), last, gather_blocks(grid, matrix, last));
    const at::Tensor changed = turned.t().ne(-1.0);
    CHECK(
        turned.t().masked_select(changed).equal(matrix.masked_select(changed)));
    CHECK(changed[grid.rows - 1][grid.cols - 1].item<bool>());
    CHECK(
        changed.sum().item<std::int64_t>() <=
        std::min(grid.block.size(), grid.rows * grid.cols));
  }
}

TEST_CASE("sums of blocks are sums of their values") {
  for (const BlockGrid& grid :
       {BlockGrid{4, 6, {2, 3}}, BlockGrid{5, 7, {2, 3}}}) {
    const at::Tensor matrix = at::rand({grid.rows, grid.cols});
    const at::Tensor all = at::arange(grid.count(), at::kLong);
    CHECK(at::allclose(
        block_sums(grid, matrix), gather_blocks(grid, matrix, all).sum(1)));
  }
}

TEST_CASE("a product's blocks are those of the whole product") {
  at::manual_seed(3);
  for (const BlockGrid& grid :
       {BlockGrid{32, 24, {8, 4}},
        BlockGrid{37, 26, {8, 4}},
        BlockGrid{37, 26, {2, 5}},
        BlockGrid{37, 26, {16, 32}}}) {
    const at::Tensor left = at::randn({11, grid.rows});
    const at::Tensor right = at::randn({11, grid.cols});
    const at::Tensor whole = at::mm(left.t(), right);
    for (const std::int64_t every : {1, 3}) {
      const at::Tensor some = at::arange(0, grid.count(), every, at::kLong);
      at::Tensor sum = at::ones({some.size(0), grid.block.size()});
      add_product_blocks_(grid, left, right, some, sum);
      CHECK(at::allclose(
          sum - 1.0, gather_blocks(grid, whole, some), 1e-4, 1e-5));
    }
  }
}
