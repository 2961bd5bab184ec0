// SPDX-License-Identifier: Apache-2.0
#include "kernels/rounded_products.h"

#include <algorithm>
#include <catch2/catch.hpp>
#include <cmath>
#include <limits>

#include "core/error.h"
#include "device_case.h"
#include "packed_case.h"
#include "trit_reference.h"

namespace fettle::kernels {
namespace {

using namespace test;

at::Tensor rounded(const PackedMatrix& m, const at::Tensor& x) {
  at::Tensor y = at::full({x.size(0), m.rows}, NAN);
  const PackedProduct one{&m, x, y};
  rounded_products({&one, 1});
  return y;
}

// Columns that share a scale, as rounded_products.h says.
std::int64_t block_of(const PackedMatrix& m) {
  if (m.group >= m.cols) return 256;
  std::int64_t block = m.group;
  while (block > 256) block /= 2;
  return m.group == 1216 ? 64 : block;
}

// x with each block rounded to its codes, in float64.
at::Tensor as_rounded(const at::Tensor& x, std::int64_t block) {
  at::Tensor all = x.to(at::kDouble).clone();
  for (std::int64_t i = 0; i < x.size(1); i += block) {
    at::Tensor part = all.narrow(1, i, std::min(block, x.size(1) - i));
    const at::Tensor top = part.abs().amax(1, true).clamp_min(1e-36);
    const at::Tensor codes =
        (part.to(at::kFloat) * (127.0f / top.to(at::kFloat)))
            .round()
            .to(at::kDouble);
    part.copy_(codes * (top / 127));
  }
  return all;
}

std::vector<PackedMatrix> cases() {
  std::vector<PackedMatrix> all;
  for (const PackedMatrix& m : packed_cases()) {
    if (has_rounded_product(m, at::empty({1, 1}))) all.push_back(m);
  }
  // Short last groups, groups that no vector of rows' bytes is a whole of.
  for (const std::int64_t bits : {2, 3, 4, 8}) {
    for (const auto& [cols, group] :
         {std::pair{250, 240}, {50, 16}, {17, 16}}) {
      all.push_back(packed_case(
          {.bits = bits, .rows = 21, .cols = cols, .group = group}));
    }
  }
  return all;
}

const DeviceCase kHere{at::kCPU, at::kFloat, 3e-6, "cpu"};

}  // namespace

TEST_CASE("integer products are those of rounded rows") {
  const std::vector<PackedMatrix> all = cases();
  CHECK(all.size() > 60);
  std::int64_t n = 0;
  for (const PackedMatrix& m : all) {
    n = n % 19 + 1;
    CAPTURE(describe(m), n);
    const at::Tensor x = values({n, m.cols}, n, kHere);
    const at::Tensor truth =
        as_rounded(x, block_of(m)).mm(plain_weights(m).t());
    check_close(rounded(m, x), truth, kHere);
  }
}

TEST_CASE("a rounded row's bits do not depend on those beside it") {
  for (const PackedMatrix& m : cases()) {
    CAPTURE(describe(m));
    const at::Tensor x = values({15, m.cols}, 5, kHere);
    const at::Tensor together = rounded(m, x);
    for (const std::int64_t row : {0, 8, 14}) {
      const at::Tensor alone = rounded(m, x.narrow(0, row, 1));
      CHECK(same_bits(alone, together.narrow(0, row, 1)));
    }
  }
}

TEST_CASE("many rounded products at once, of rows that lie apart") {
  const std::vector<PackedMatrix> all = cases();
  std::vector<PackedProduct> products;
  std::vector<at::Tensor> expected;
  for (const PackedMatrix& m : all) {
    const at::Tensor x = values({3, m.cols + 3}, 7, kHere);
    const at::Tensor y = at::full({3, m.rows + 2}, 7.0);
    products.push_back({&m, x.narrow(1, 2, m.cols), y.narrow(1, 1, m.rows)});
    products.push_back({&m, x.narrow(1, 2, m.cols), at::empty({3, m.rows})});
    expected.push_back(rounded(m, x.narrow(1, 2, m.cols)));
  }
  rounded_products(products);
  for (std::size_t i = 0; i < all.size(); ++i) {
    CAPTURE(describe(all[i]));
    const at::Tensor& y = products[2 * i].y;
    CHECK(same_bits(y.contiguous(), expected[i]));
    CHECK(same_bits(products[2 * i + 1].y, expected[i]));
    const std::int64_t width = all[i].rows + 2;
    const at::Tensor whole = y.as_strided({3, width}, {width, 1}, 0);
    CHECK((whole.narrow(1, 0, 1) == 7).all().item<bool>());
    CHECK((whole.narrow(1, width - 1, 1) == 7).all().item<bool>());
  }
  rounded_products({});
}

TEST_CASE("rows of x that have no codes") {
  const PackedMatrix m =
      packed_case({.bits = 4, .rows = 20, .cols = 100, .group = 32});
  at::Tensor x = at::ones({6, 100});
  const at::Tensor sound = rounded(m, x);
  x[1][99] = NAN;
  x[2][40] = std::numeric_limits<float>::infinity();
  x[3].zero_();
  x[4].fill_(1e-38);  // its reciprocal is infinite
  const at::Tensor y = rounded(m, x);
  CHECK(y[1].isnan().all().item<bool>());
  CHECK(y[2].isnan().all().item<bool>());
  CHECK((y[3] == 0).all().item<bool>());
  CHECK((y[4] == 0).all().item<bool>());
  CHECK(same_bits(y[0], sound[0]));
  CHECK(same_bits(y[5], sound[5]));
}

TEST_CASE("coded trits have the bits of plain ones, and damage is told") {
  const at::Tensor trits = seeded_trits(19, 300, {0.8, 0.1}, 3);
  const at::Tensor x = values({5, 300}, 2, kHere);
  PackedMatrix plain{
      .kind = PackedKind::kTernary,
      .rows = 19,
      .cols = 300,
      .group = 128,
      .codes = pack_codes(PackedKind::kTernary, 0, (trits + 1).to(at::kByte)),
      .scales = at::ones({19, 3}, at::kBFloat16)};
  const at::Tensor expected = rounded(plain, x);
  for (const PackedKind kind : {kWords, kHuffman}) {
    PackedMatrix coded =
        loaded_trits(stored_trits(encode_trits(kind, trits), 300));
    CHECK(same_bits(rounded(coded, x), expected));
    coded.codes = at::full_like(coded.codes, 255);
    CHECK_THROWS_AS(rounded(coded, x), UserError);
  }
}

TEST_CASE("some groups have no integer products") {
  const auto has = [](std::int64_t cols, std::int64_t group) {
    const PackedMatrix m =
        packed_case({.bits = 4, .rows = 1, .cols = cols, .group = group});
    return has_rounded_product(m, at::empty({1, cols}));
  };
  CHECK(has(64, 16));
  CHECK(has(7, 7));
  CHECK(has(7, 100));
  CHECK_FALSE(has(64, 8));
  CHECK_FALSE(has(64, 40));
  const PackedMatrix m =
      packed_case({.bits = 4, .rows = 1, .cols = 64, .group = 8});
  CHECK_THROWS_AS(rounded(m, at::empty({1, 64})), InternalError);
}

}  // namespace fettle::kernels
