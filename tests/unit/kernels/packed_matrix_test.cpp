// SPDX-License-Identifier: Apache-2.0
#include "kernels/packed_matrix.h"

#include <catch2/catch.hpp>
#include <cmath>

#include "core/error.h"
#include "device_case.h"
#include "packed_case.h"

namespace fettle::kernels {
namespace {

using namespace test;

at::Tensor bytes_of(std::initializer_list<int> bytes) {
  return at::tensor(std::vector<int>(bytes), at::kByte);
}

PackedMatrix one_row(
    PackedKind kind,
    std::int64_t bits,
    std::int64_t cols,
    std::initializer_list<int> bytes) {
  return {
      .kind = kind,
      .bits = bits,
      .rows = 1,
      .cols = cols,
      .group = 8,
      .codes = bytes_of(bytes),
      .scales = at::full({1, (cols + 7) / 8}, 0.5, at::kBFloat16)};
}

at::Tensor unpacked(const PackedMatrix& m, at::ScalarType type = at::kFloat) {
  at::Tensor out = at::full({m.rows, m.cols}, NAN, type).to(m.codes.device());
  unpack_rows(m, 0, out);
  return out;
}

PackedMatrix on_device(PackedMatrix m, at::Device device) {
  for (at::Tensor* t : {&m.codes, &m.scales, &m.zeros}) {
    if (t->defined()) *t = t->to(device);
  }
  return m;
}

void check_unpacking(const DeviceCase& where) {
  for (const PackedMatrix& m : packed_cases()) {
    CAPTURE(where.name, describe(m));
    check_packed(m);
    const at::Tensor expected = plain_weights(m).to(at::kFloat).to(where.dtype);
    const PackedMatrix there = on_device(m, where.device);
    CHECK(same_bits(unpacked(there, where.dtype).cpu(), expected));
    // Some rows, into the middle of a wider matrix.
    const std::int64_t first = m.rows / 3, n = m.rows - first - m.rows / 4;
    at::Tensor wide = at::full(
        {n, m.cols + 9}, 7, at::TensorOptions(where.device).dtype(where.dtype));
    unpack_rows(there, first, wide.narrow(1, 4, m.cols));
    CHECK(same_bits(
        wide.narrow(1, 4, m.cols).cpu(), expected.narrow(0, first, n)));
    CHECK((wide.narrow(1, 0, 4) == 7).all().item<bool>());
    CHECK((wide.narrow(1, m.cols + 4, 5) == 7).all().item<bool>());
  }
}

void check_products(const DeviceCase& where) {
  std::int64_t n = 0;
  for (const PackedMatrix& m : packed_cases()) {
    n = n % 10 + 1;  // there are nine matrices of a size
    CAPTURE(where.name, describe(m), n);
    const at::Tensor x = values({n, m.cols}, n, where);
    const PackedMatrix there = on_device(m, where.device);
    check_close(packed_product(there, on(where, x)), true_product(m, x), where);
  }
}

// More products than one launch holds, of all kinds, x and y strided.
void check_many_products(const DeviceCase& where) {
  const std::vector<PackedMatrix> cases = packed_cases();
  std::vector<PackedMatrix> there;
  for (const PackedMatrix& m : cases) {
    there.push_back(on_device(m, where.device));
  }
  std::vector<PackedProduct> products;
  std::vector<at::Tensor> inputs;
  for (std::size_t i = 0; i < there.size(); ++i) {
    const std::int64_t n = static_cast<std::int64_t>(i * 5 % 11);
    const PackedMatrix& m = there[i];
    const at::Tensor x = values({n, m.cols + 3}, 77, where);
    const at::Tensor y = at::full({n, m.rows + 2}, 7.0);
    inputs.push_back(x.narrow(1, 2, m.cols));
    products.push_back(
        {&m,
         on(where, x).narrow(1, 2, m.cols),
         on(where, y).narrow(1, 1, m.rows)});
  }
  packed_products(products);
  for (std::size_t i = 0; i < products.size(); ++i) {
    const at::Tensor& y = products[i].y;
    if (y.size(0) == 0) continue;
    CAPTURE(where.name, describe(cases[i]), y.size(0));
    check_close(y, true_product(cases[i], inputs[i]), where);
    const std::int64_t width = cases[i].rows + 2;
    const at::Tensor whole = y.as_strided({y.size(0), width}, {width, 1}, 0);
    CHECK((whole.narrow(1, 0, 1) == 7).all().item<bool>());
    CHECK((whole.narrow(1, width - 1, 1) == 7).all().item<bool>());
  }
}

// Codes that begin at any address, as those of some rows of a matrix may.
void check_moved_codes(const DeviceCase& where) {
  for (PackedMatrix m : packed_cases()) {
    const at::Tensor x = values({2, m.cols}, 3, where);
    const at::Tensor expected = true_product(m, x);
    const at::Tensor weights = plain_weights(m).to(at::kFloat).to(where.dtype);
    for (const std::int64_t begin : {1, 2, 4, 8}) {
      CAPTURE(where.name, describe(m), begin);
      const std::int64_t size = m.codes.numel();
      PackedMatrix there = on_device(m, where.device);
      there.codes = at::zeros({size + begin}, there.codes.options());
      there.codes = there.codes.narrow(0, begin, size);
      there.codes.copy_(m.codes);
      CHECK(same_bits(unpacked(there, where.dtype).cpu(), weights));
      check_close(packed_product(there, on(where, x)), expected, where);
    }
  }
}

// What sums lose must not depend on how large x is, nor much on its mean.
void check_sizes_of_x(const DeviceCase& where) {
  for (const std::int64_t bits : {0, 2, 3, 4, 8}) {
    const PackedMatrix m = packed_case(
        {.kind = bits == 0 ? PackedKind::kTernary : PackedKind::kInt,
         .bits = bits,
         .rows = 9,
         .cols = 1024,
         .group = 128,
         .zeros = bits != 0});
    const PackedMatrix there = on_device(m, where.device);
    for (const int exponent : {-40, -10, 30, 45}) {
      CAPTURE(where.name, bits, exponent);
      const at::Tensor x =
          values({2, m.cols}, 3, where) * std::ldexp(1.0, exponent);
      check_close(
          packed_product(there, on(where, x)), true_product(m, x), where);
    }
    CAPTURE(where.name, bits);
    const at::Tensor x = values({2, m.cols}, 3, where).abs();
    check_close(packed_product(there, on(where, x)), true_product(m, x), where);
  }
}

}  // namespace

TEST_CASE("codes lie in a byte from its lowest bit") {
  const auto kind = PackedKind::kInt;
  const auto expect = [](const PackedMatrix& m, at::Tensor codes, int zero) {
    check_packed(m);
    CHECK(at::equal(unpacked(m), (codes.reshape({1, -1}) - zero) * 0.5));
  };
  expect(
      one_row(kind, 8, 3, {7, 130, 255, 9, 9, 9, 9, 9}),
      at::tensor({7.f, 130.f, 255.f}),
      128);
  expect(
      one_row(kind, 4, 3, {0x21, 0xf, 0, 0}), at::tensor({1.f, 2.f, 15.f}), 8);
  expect(
      one_row(kind, 2, 5, {0b11100100, 2}),
      at::tensor({0.f, 1.f, 2.f, 3.f, 2.f}),
      2);
  // 5 + 6·8 + 7·64 + 1·512
  expect(
      one_row(kind, 3, 4, {0xf5, 0x03, 0}),
      at::tensor({5.f, 6.f, 7.f, 1.f}),
      4);
  expect(
      one_row(PackedKind::kTernary, 0, 7, {0 + 6 + 9 + 27 + 162, 2 + 3 * 1}),
      at::tensor({0.f, 2.f, 1.f, 1.f, 2.f, 2.f, 1.f}),
      1);
}

TEST_CASE("a group of its own zero and scale") {
  PackedMatrix m =
      one_row(PackedKind::kInt, 4, 10, {0x21, 0, 0, 0, 0xf3, 0, 0, 0});
  m.zeros = at::tensor({1, 5}, at::kByte).reshape({1, 2});
  m.scales = at::tensor({2.f, -0.25f}).reshape({1, 2}).to(at::kBFloat16);
  check_packed(m);
  CHECK(at::equal(
      unpacked(m),
      at::tensor({0.f, 2.f, -2.f, -2.f, -2.f, -2.f, -2.f, -2.f, 0.5f, -2.5f})
          .reshape({1, 10})));
  CHECK(packed_product(m, at::ones({1, 10})).item<float>() == -12.0f);
}

TEST_CASE("packed codes are those given, and filled up") {
  for (const std::int64_t bits : {2, 3, 4, 8, 0}) {
    const auto kind = bits == 0 ? PackedKind::kTernary : PackedKind::kInt;
    const std::int64_t levels = bits == 0 ? 3 : 1 << bits;
    for (const std::int64_t cols : {0, 1, 5, 8, 40, 123}) {
      CAPTURE(bits, cols);
      const at::Tensor codes = seeded_bytes({29, cols}, levels, cols);
      // One row more than the matrix is wide shows what it is filled with.
      const std::int64_t whole =
          bits == 0 ? (cols + 4) / 5 * 5 : (cols + 7) / 8 * 8;
      PackedMatrix m{.kind = kind, .bits = bits, .rows = 29, .cols = whole};
      m.codes = pack_codes(kind, bits, codes);
      CHECK(m.codes.numel() == 29 * packed_row_bytes(kind, bits, cols));
      const at::Tensor found = plain_codes(m);
      CHECK(at::equal(found.narrow(1, 0, cols), codes));
      CHECK((found.narrow(1, cols, whole - cols) == (bits == 0 ? 1 : 0))
                .all()
                .item<bool>());
    }
  }
}

TEST_CASE("codes that do not fit are not packed") {
  const auto kind = PackedKind::kInt;
  CHECK_THROWS_AS(
      pack_codes(kind, 2, bytes_of({1, 4}).view({1, 2})), InternalError);
  CHECK_THROWS_AS(
      pack_codes(kind, 3, bytes_of({8, 0}).view({1, 2})), InternalError);
  CHECK_THROWS_AS(
      pack_codes(kind, 4, bytes_of({0, 16}).view({2, 1})), InternalError);
  CHECK_THROWS_AS(
      pack_codes(PackedKind::kTernary, 0, bytes_of({0, 3}).view({1, 2})),
      InternalError);
  CHECK_THROWS_AS(
      pack_codes(kind, 5, bytes_of({0}).view({1, 1})), InternalError);
  CHECK_THROWS_AS(pack_codes(kind, 4, bytes_of({0})), InternalError);
  CHECK_THROWS_AS(pack_codes(kind, 4, at::zeros({1, 1})), InternalError);
}

TEST_CASE("packed weights unpack to their definition") {
  for (const auto& where : cpu_cases()) check_unpacking(where);
}

TEST_CASE("packed products equal those of the weights") {
  check_products(cpu_cases()[0]);
  check_many_products(cpu_cases()[0]);
}

TEST_CASE("packed codes may begin anywhere") {
  check_moved_codes(cpu_cases()[0]);
}

TEST_CASE("packed products of small and of large x") {
  check_sizes_of_x(cpu_cases()[0]);
}

TEST_CASE("packed weights unpack to their definition on a GPU", "[gpu]") {
  for (const auto& where : gpu_cases()) check_unpacking(where);
}

TEST_CASE("packed products equal those of the weights on a GPU", "[gpu]") {
  for (const auto& where : gpu_cases()) {
    check_products(where);
    check_many_products(where);
    check_moved_codes(where);
    if (where.dtype != at::kHalf) check_sizes_of_x(where);
  }
}

TEST_CASE("packed results have the same bits on any number of threads") {
  const int before = at::get_num_threads();
  const std::vector<PackedMatrix> cases = packed_cases();
  const auto run = [&](int threads) {
    at::set_num_threads(threads);
    std::vector<at::Tensor> all;
    std::vector<PackedProduct> products;
    for (const PackedMatrix& m : cases) {
      all.push_back(unpacked(m));
      const at::Tensor x = values({5, m.cols}, 3, cpu_cases()[0]);
      products.push_back({&m, x, at::empty({5, m.rows})});
    }
    packed_products(products);
    for (const PackedProduct& p : products) all.push_back(p.y);
    return all;
  };
  const auto alone = run(1);
  for (const int threads : {2, 3, 5}) {
    const auto together = run(threads);
    for (std::size_t i = 0; i < alone.size(); ++i) {
      CAPTURE(threads, i);
      CHECK(same_bits(together[i], alone[i]));
    }
  }
  at::set_num_threads(before);
}

// Sums are of float32: a long row of large codes must not lose small ones.
TEST_CASE("a long row of 8 bits is summed closely") {
  const PackedMatrix m = packed_case(
      {.bits = 8, .rows = 3, .cols = 20000, .group = 20000, .zeros = true});
  const at::Tensor x = values({2, m.cols}, 1, cpu_cases()[0]);
  check_close(packed_product(m, x), true_product(m, x), cpu_cases()[0]);
}

TEST_CASE("no weights, no rows, no x") {
  PackedMatrix m{
      .bits = 4,
      .rows = 3,
      .codes = at::empty({0}, at::kByte),
      .scales = at::empty({3, 0}, at::kBFloat16)};
  check_packed(m);
  CHECK(unpacked(m).sizes() == at::IntArrayRef({3, 0}));
  CHECK(at::equal(packed_product(m, at::ones({2, 0})), at::zeros({2, 3})));
  packed_products({});
  m = packed_case({.bits = 3, .rows = 0, .cols = 40, .group = 8});
  check_packed(m);
  CHECK(unpacked(m).sizes() == at::IntArrayRef({0, 40}));
  CHECK(
      packed_product(m, at::ones({2, 40})).sizes() == at::IntArrayRef({2, 0}));
  m = packed_case({.bits = 3, .rows = 2, .cols = 40, .group = 8});
  CHECK(
      packed_product(m, at::ones({0, 40})).sizes() == at::IntArrayRef({0, 2}));
}

TEST_CASE("bytes that no packing makes are no danger") {
  PackedMatrix m = packed_case(
      {.kind = PackedKind::kTernary, .rows = 31, .cols = 203, .group = 16});
  m.codes = seeded_bytes({m.codes.numel()}, 256, 5);
  check_packed(m);
  CHECK(unpacked(m).isfinite().all().item<bool>());
  CHECK(packed_product(m, at::ones({2, 203})).isfinite().all().item<bool>());
  m = packed_case(
      {.bits = 4, .rows = 31, .cols = 203, .group = 16, .zeros = true});
  m.zeros = seeded_bytes(m.zeros.sizes(), 256, 6);
  CHECK(at::equal(unpacked(m), plain_weights(m).to(at::kFloat)));
}

TEST_CASE("a NaN of x or of a scale shows in its sums only") {
  PackedMatrix m =
      packed_case({.bits = 4, .rows = 2, .cols = 300, .group = 40});
  at::Tensor x = at::ones({2, 300});
  x[1][299] = NAN;
  const at::Tensor y = packed_product(m, x);
  CHECK(y[0].isfinite().all().item<bool>());
  CHECK(y[1].isnan().all().item<bool>());
  m.scales[1][7] = NAN;
  const at::Tensor z = packed_product(m, x)[0];
  CHECK(z[0].item<float>() == y[0][0].item<float>());
  CHECK(z[1].isnan().item<bool>());
}

TEST_CASE("a packed matrix whose parts do not fit is refused") {
  const PackedMatrix sound = packed_case(
      {.bits = 4, .rows = 3, .cols = 40, .group = 16, .zeros = true});
  check_packed(sound);
  const auto refused = [&](const std::function<void(PackedMatrix&)>& change) {
    PackedMatrix m = sound;
    change(m);
    CHECK_THROWS_AS(check_packed(m), InternalError);
  };
  refused([](auto& m) { m.bits = 5; });
  refused([](auto& m) { m.bits = 3; });
  refused([](auto& m) { m.rows = 4; });
  refused([](auto& m) { m.rows = -1; });
  refused([](auto& m) { m.cols = 48; });
  refused([](auto& m) { m.cols = -8; });
  refused([](auto& m) { m.cols = std::int64_t{1} << 62; });
  refused([](auto& m) { m.group = 0; });
  refused([](auto& m) { m.group = -16; });
  refused([](auto& m) { m.group = 8; });
  refused([](auto& m) { m.group = std::numeric_limits<std::int64_t>::max(); });
  refused([](auto& m) { m.kind = PackedKind::kTernary; });
  refused([](auto& m) { m.kind = static_cast<PackedKind>(9); });
  refused([](auto& m) { m.codes = at::Tensor(); });
  refused([](auto& m) { m.codes = m.codes.narrow(0, 1, 59); });
  refused([](auto& m) { m.codes = m.codes.view({3, 20}); });
  refused([](auto& m) { m.codes = m.codes.to(at::kInt); });
  refused([](auto& m) {
    m.codes = at::zeros({120}, at::kByte).slice(0, 0, 120, 2);
  });
  refused([](auto& m) { m.scales = at::Tensor(); });
  refused([](auto& m) { m.scales = m.scales.to(at::kFloat); });
  refused([](auto& m) { m.scales = m.scales.narrow(1, 0, 2); });
  refused([](auto& m) { m.scales = m.scales.t(); });
  refused([](auto& m) { m.zeros = m.zeros.to(at::kChar); });
  refused([](auto& m) { m.zeros = m.zeros.narrow(0, 0, 2); });
  refused([](auto& m) { m.table = at::zeros({4}, at::kByte); });
  refused([](auto& m) { m.row_begin = at::zeros({4}, at::kLong); });
}

TEST_CASE("unpacking and products refuse what does not fit") {
  const PackedMatrix m =
      packed_case({.bits = 4, .rows = 3, .cols = 40, .group = 16});
  const at::Tensor out = at::empty({2, 40});
  CHECK_THROWS_AS(unpack_rows(m, 2, out), InternalError);
  CHECK_THROWS_AS(unpack_rows(m, -1, out), InternalError);
  CHECK_THROWS_AS(unpack_rows(m, 0, at::empty({2, 39})), InternalError);
  CHECK_THROWS_AS(unpack_rows(m, 0, at::empty({40, 2}).t()), InternalError);
  CHECK_THROWS_AS(unpack_rows(m, 0, out.to(at::kHalf)), InternalError);
  const auto refused = [](const PackedProduct& p) {
    CHECK_THROWS_AS(packed_products({&p, 1}), InternalError);
  };
  const at::Tensor x = at::ones({2, 40}), y = at::ones({2, 3});
  refused({&m, x.narrow(1, 0, 39), y});
  refused({&m, x, at::ones({2, 4})});
  refused({&m, x, at::ones({1, 3})});
  refused({&m, at::ones({40, 2}).t(), y});
  refused({&m, x, at::ones({3, 2}).t()});
  refused({&m, x.to(at::kDouble), y.to(at::kDouble)});
  refused({&m, x.to(at::kBFloat16), y.to(at::kBFloat16)});
  refused({&m, x, y.to(at::kBFloat16)});
  refused({nullptr, x, y});
}

TEST_CASE("a packed matrix weighs what its tensors do") {
  const PackedMatrix m = packed_case(
      {.bits = 3, .rows = 4, .cols = 41, .group = 16, .zeros = true});
  CHECK(m.bytes() == 4 * 18 + 2 * 4 * 3 + 4 * 3);
}

}  // namespace fettle::kernels
