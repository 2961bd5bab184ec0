// SPDX-License-Identifier: Apache-2.0
#include "kernels/row_product.h"

#include <catch2/catch.hpp>

#include "core/error.h"
#include "device_case.h"

namespace fettle::kernels {
namespace {

using namespace test;

const DeviceCase kRowCase{at::kCPU, at::kFloat, 1e-5, "float32 on the CPU"};

}  // namespace

TEST_CASE("row_product is the product, with either side contiguous") {
  // Sizes at, below and above whole vectors and tiles.
  for (const std::int64_t inner : {1, 7, 16, 33, 128}) {
    for (const std::int64_t columns : {1, 5, 16, 67, 300}) {
      const at::Tensor x = values({7, inner}, 1, kRowCase);
      const at::Tensor w = values({inner, columns}, 2, kRowCase);
      const at::Tensor expected =
          at::mm(x.to(at::kDouble), w.to(at::kDouble)).to(at::kFloat);
      CAPTURE(inner, columns);
      CHECK(at::allclose(row_product(x, w), expected, 1e-5, 1e-5));
      const at::Tensor turned = w.t().contiguous().t();
      CHECK(at::allclose(row_product(x, turned), expected, 1e-5, 1e-5));
    }
  }
}

TEST_CASE("row_product gives a row the same bits beside any others") {
  const at::Tensor x = values({9, 100}, 3, kRowCase);
  const at::Tensor w = values({100, 77}, 4, kRowCase);
  for (const at::Tensor& side : {w, w.t().contiguous().t()}) {
    const at::Tensor all = row_product(x, side);
    for (std::int64_t begin = 0; begin < 9; ++begin) {
      for (std::int64_t count = 1; begin + count <= 9; ++count) {
        CHECK(row_product(x.narrow(0, begin, count), side)
                  .equal(all.narrow(0, begin, count)));
      }
    }
  }
}

TEST_CASE("row_product takes bfloat16 as the float32 that it is") {
  for (const std::int64_t inner : {1, 33, 100}) {
    const at::Tensor x = values({7, inner}, 8, kRowCase);
    const at::Tensor w = values({inner, 77}, 9, kRowCase).to(at::kBFloat16);
    for (const at::Tensor& side : {w, w.t().contiguous().t()}) {
      CHECK(row_product(x, side).equal(row_product(x, side.to(at::kFloat))));
    }
  }
}

TEST_CASE("row_product writes into rows of another tensor") {
  const at::Tensor x = values({3, 20}, 5, kRowCase);
  const at::Tensor w = values({20, 10}, 6, kRowCase);
  const at::Tensor all = at::zeros({3, 30});
  row_product_into(all.narrow(1, 10, 10), x, w);
  CHECK(all.narrow(1, 10, 10).equal(row_product(x, w)));
  CHECK(all.narrow(1, 0, 10).count_nonzero().item<int>() == 0);
  CHECK(all.narrow(1, 20, 10).count_nonzero().item<int>() == 0);
}

TEST_CASE("row_product takes float32 whose rows or columns are contiguous") {
  const at::Tensor x = at::ones({2, 3});
  const at::Tensor w = at::ones({3, 4});
  CHECK(has_row_product(x, w));
  CHECK(has_row_product(x, w.t().contiguous().t()));
  CHECK_FALSE(has_row_product(x.to(at::kBFloat16), w));
  CHECK_FALSE(has_row_product(x, w.to(at::kDouble)));
  CHECK_FALSE(
      has_row_product(x, at::ones({6, 8}).slice(0, 0, 6, 2).slice(1, 0, 8, 2)));
  CHECK_THROWS_AS(row_product(x, at::ones({4, 4})), InternalError);
  CHECK_THROWS_AS(row_product_into(at::ones({2, 5}), x, w), InternalError);
}

}  // namespace fettle::kernels
