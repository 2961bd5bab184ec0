// SPDX-License-Identifier: Apache-2.0
// Packed products of the CPU: a row's bits do not depend on those beside it,
// which is not said of a card's.
#include <catch2/catch.hpp>
#include <utility>

#include "device_case.h"
#include "packed_case.h"

namespace fettle::kernels {
namespace {

using namespace test;

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
        const at::Tensor together = packed_product(m, x);
        check_close(together, true_product(m, x), kFloatOnCpu);
        const at::Tensor last = packed_product(m, x.narrow(0, n - 1, 1));
        CHECK(same_bits(last, together.narrow(0, n - 1, 1)));
      }
    }
  }
}

}  // namespace fettle::kernels
