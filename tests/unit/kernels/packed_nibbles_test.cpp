// SPDX-License-Identifier: Apache-2.0
// Packed products of the CPU: a row's bits do not depend on those beside it,
// which is not said of a card's.
#include <catch2/catch.hpp>
#include <cmath>
#include <utility>

#include "device_case.h"
#include "kernels/packed_matrix.h"
#include "packed_case.h"

namespace fettle::kernels {
namespace {

using namespace test;

at::Tensor cpu_product(const PackedMatrix& m, const at::Tensor& x) {
  at::Tensor y = at::full({x.size(0), m.rows}, NAN);
  const PackedProduct one{&m, x, y};
  packed_products({&one, 1});
  return y;
}

const DeviceCase kFloatOnCpu{at::kCPU, at::kFloat, 1e-5, "cpu"};

}  // namespace

TEST_CASE("four bits in whole vectors: the sums, and a row's bits alone") {
  for (const auto& [cols, group] :
       {std::pair{128, 128}, {768, 128}, {1536, 768}, {512, 256}}) {
    for (const bool zeros : {false, true}) {
      const PackedMatrix m = packed_case(
          {.bits = 4,
           .rows = 11,
           .cols = cols,
           .group = group,
           .zeros = zeros});
      for (const std::int64_t n : {1, 2, 3, 4, 7, 8}) {
        CAPTURE(describe(m), n);
        const at::Tensor wide = values({n, m.cols + 5}, n, kFloatOnCpu);
        const at::Tensor x = wide.narrow(1, 3, m.cols);
        const at::Tensor together = cpu_product(m, x);
        const at::Tensor truth = x.to(at::kDouble).mm(plain_weights(m).t());
        check_close(together, truth, kFloatOnCpu);
        const at::Tensor last = cpu_product(m, x.narrow(0, n - 1, 1));
        CHECK(same_bits(last, together.narrow(0, n - 1, 1)));
      }
    }
  }
}

}  // namespace fettle::kernels
