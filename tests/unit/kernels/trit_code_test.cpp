// SPDX-License-Identifier: Apache-2.0
#include "kernels/trit_code.h"

#include <ATen/CPUGeneratorImpl.h>
#include <fmt/format.h>

#include <catch2/catch.hpp>

#include "core/error.h"
#include "device_case.h"
#include "trit_reference.h"

namespace fettle::kernels {
namespace {

using namespace test;

struct TritCase {
  std::string name;
  PackedKind kind;
  at::Tensor trits;
  // Sums of x alone, which all rows would be, may cancel to nothing.
  bool alike = false;
};

std::vector<TritCase> trit_cases() {
  std::vector<TritCase> cases;
  const auto add = [&](const std::string& name,
                       const at::Tensor& trits,
                       bool alike = false) {
    cases.push_back({name + ", words", kWords, trits, alike});
    cases.push_back({name + ", Huffman", kHuffman, trits, alike});
  };
  for (const std::int64_t cols : {1, 5, 40, 1408, 4099}) {
    const std::int64_t rows = cols > 1000 ? 7 : 41;
    for (const double zero : {0.33, 0.5, 0.885, 0.99}) {
      for (const double share : {0.5, 0.9}) {
        const TritOdds odds{zero, (1 - zero) * share};
        add(fmt::format("{}: {} {}", cols, odds.zero, odds.plus),
            seeded_trits(rows, cols, odds, cols));
      }
    }
    const at::Tensor ones = at::ones({rows, cols}, at::kChar);
    add(fmt::format("{}: zeros", cols), ones * 0);
    add(fmt::format("{}: ones", cols), ones, true);
    add(fmt::format("{}: minus ones", cols), -ones, true);
  }
  add("no columns", at::empty({3, 0}, at::kChar));
  add("no rows", at::empty({0, 40}, at::kChar));
  // Runs of zeros longer than any word, and what ends them.
  at::Tensor runs = at::zeros({4, 1500}, at::kChar);
  runs[0][1499] = 1;
  runs[1][0] = -1;
  runs[2][700] = 1;
  add("long runs", runs);
  return cases;
}

// Scales of both signs.
PackedMatrix with_scales(PackedMatrix m) {
  auto generator = at::detail::createCPUGenerator(m.cols);
  m.scales =
      at::randn({m.rows, m.groups()}, generator, at::kFloat).to(at::kBFloat16);
  return m;
}

at::Tensor plain_weights_of(const PackedMatrix& m, const at::Tensor& trits) {
  if (m.cols == 0) return at::empty({m.rows, 0}, at::kDouble);
  const at::Tensor group = at::arange(m.cols, at::kLong).floor_divide(m.group);
  return trits.to(at::kDouble) *
         m.scales.cpu().to(at::kDouble).index_select(1, group);
}

PackedMatrix coded_on_device(PackedMatrix m, at::Device device) {
  for (at::Tensor* t : {&m.codes, &m.scales, &m.row_begin, &m.table}) {
    *t = t->to(device);
  }
  return m;
}

void check_weights(const DeviceCase& where) {
  std::int64_t n = 0;
  for (const TritCase& c : trit_cases()) {
    n = n % 9 + 1;
    CAPTURE(where.name, c.name, n);
    const auto stored =
        stored_trits(encode_trits(c.kind, c.trits), c.trits.size(1));
    for (const std::int64_t group : {5, 128, 5000}) {
      const PackedMatrix m = with_scales(loaded_trits(stored, group));
      const at::Tensor weights = plain_weights_of(m, c.trits);
      const PackedMatrix there = coded_on_device(m, where.device);
      check_packed(there);
      const std::int64_t first = m.rows / 3, count = m.rows - first;
      at::Tensor out = at::full({count, m.cols + 9}, 7.0);
      out = on(where, out);
      unpack_rows(there, first, out.narrow(1, 4, m.cols));
      const at::Tensor expected =
          weights.narrow(0, first, count).to(at::kFloat).to(where.dtype);
      const at::Tensor got = out.narrow(1, 4, m.cols).cpu();
      CHECK((got.numel() == 0 || same_bits(got, expected)));
      CHECK((out.narrow(1, 0, 4) == 7).all().item<bool>());
      CHECK((out.narrow(1, m.cols + 4, 5) == 7).all().item<bool>());
      if (where.device.is_cpu() && where.dtype != at::kFloat) continue;
      if (c.alike || m.rows == 0) continue;
      const at::Tensor x = values({n, m.cols}, n, where);
      const at::Tensor y = on(where, at::full({n, m.rows}, 7.0));
      const PackedProduct one{&there, on(where, x), y};
      packed_products({&one, 1});
      check_close(y, x.to(at::kDouble).mm(weights.t()), where);
    }
  }
}

}  // namespace

TEST_CASE("words of ten bits, by hand") {
  // The root's child 0 has children: words 00, 0+, 0-, +, -.
  const std::vector<std::uint8_t> table{0b0000011};
  // - 0+ 00 00, the last zero being dropped: numbers 4, 1, 0, 0.
  const std::uint64_t codes = 4 | 1 << 10;
  StoredTrits stored{kWords, 2, 6, {}, {}, table};
  for (int i = 0; i < 5; ++i) {
    stored.codes.push_back(static_cast<std::uint8_t>(codes >> 8 * i));
  }
  // + + + + + +, which takes eight bytes.
  const std::uint64_t pluses =
      std::uint64_t{3} * (1 | 1 << 10 | 1 << 20 | std::uint64_t{1} << 30 |
                          std::uint64_t{1} << 40 | std::uint64_t{1} << 50);
  for (int i = 0; i < 8; ++i) {
    stored.codes.push_back(static_cast<std::uint8_t>(pluses >> 8 * i));
  }
  stored.row_lengths = {5, 0, 0, 0, 2, 3 << 2};
  const PackedMatrix m = loaded_trits(stored);
  check_trit_code(m);
  CHECK(at::equal(
      decode_trits(m, 0, 2),
      at::tensor({-1, 0, 1, 0, 0, 0, 1, 1, 1, 1, 1, 1}, at::kChar)
          .view({2, 6})));
}

TEST_CASE("Huffman codes of words, by hand") {
  // Words 0, +, - with codes of 1, 2 and 2 bits: 0, 10, 11.
  // The tree takes four bits, and then each length. A row 0, +, -, 0, 0 has the
  // bits 0, 10, 11, 0, 0, from the lowest on.
  const StoredTrits stored{
      kHuffman, 1, 5, {0b0'0'11'01'0}, {1, 0, 0, 0, 0}, {0x11, 0x22}};
  const PackedMatrix m = loaded_trits(stored);
  CHECK(at::equal(
      decode_trits(m, 0, 1),
      at::tensor({0, 1, -1, 0, 0}, at::kChar).view({1, 5})));
  // Read by the slow decoder too, which is what the other tests go by.
  CHECK(at::equal(*reference_trits(stored), decode_trits(m, 0, 1)));
}

TEST_CASE("coded trits are those given, also to a slow decoder") {
  for (const TritCase& c : trit_cases()) {
    CAPTURE(c.name);
    const TritCode code = encode_trits(c.kind, c.trits);
    const auto stored = stored_trits(code, c.trits.size(1));
    CHECK(
        stored_bytes(code) ==
        static_cast<std::int64_t>(
            stored.codes.size() + stored.row_lengths.size() +
            stored.table.size()));
    const auto reference = reference_trits(stored);
    REQUIRE(reference.has_value());
    CHECK(at::equal(*reference, c.trits));
    const PackedMatrix m = loaded_trits(stored);
    check_packed(m);
    CHECK(at::equal(m.row_begin, code.row_begin));
    CHECK(at::equal(decode_trits(m, 0, m.rows), c.trits));
    const std::int64_t first = m.rows / 2;
    CHECK(at::equal(
        decode_trits(m, first, m.rows - first),
        c.trits.narrow(0, first, m.rows - first)));
  }
}

TEST_CASE("coded trits unpack and multiply as their weights do") {
  for (const auto& where : cpu_cases()) check_weights(where);
}

TEST_CASE(
    "coded trits unpack and multiply as their weights do on a GPU", "[gpu]") {
  for (const auto& where : gpu_cases()) check_weights(where);
}

TEST_CASE("a GPU makes damaged rows of coded trits NaN", "[gpu]") {
  for (const auto& where : gpu_cases()) {
    for (const PackedKind kind : {kWords, kHuffman}) {
      const at::Tensor trits = seeded_trits(70, 300, {0.885, 0.06}, 1);
      const auto stored = stored_trits(encode_trits(kind, trits), 300);
      PackedMatrix m = loaded_trits(stored);
      const auto* begin = m.row_begin.const_data_ptr<std::int64_t>();
      // Row 1 loses a byte to row 2.
      m.row_begin[2] = begin[2] - 1;
      const PackedMatrix there = coded_on_device(m, where.device);
      at::Tensor out = on(where, at::zeros({70, 300}));
      unpack_rows(there, 0, out);
      const at::Tensor y = on(where, at::zeros({1, 70}));
      const PackedProduct one{&there, on(where, at::ones({1, 300})), y};
      packed_products({&one, 1});
      CHECK(out[1].isnan().all().item<bool>());
      CHECK(y[0][1].isnan().item<bool>());
      CHECK(at::equal(
          out.narrow(0, 3, 67).cpu().to(at::kChar), trits.narrow(0, 3, 67)));
      CHECK(y.narrow(1, 3, 67).isfinite().all().item<bool>());
    }
  }
}

TEST_CASE("trits are coded in the same bytes on any number of threads") {
  const int before = at::get_num_threads();
  const at::Tensor trits = seeded_trits(300, 1000, {0.8, 0.1}, 3);
  for (const PackedKind kind : {kWords, kHuffman}) {
    at::set_num_threads(1);
    const TritCode alone = encode_trits(kind, trits);
    at::set_num_threads(3);
    const TritCode together = encode_trits(kind, trits);
    CHECK(at::equal(alone.codes, together.codes));
    CHECK(at::equal(alone.row_begin, together.row_begin));
    CHECK(at::equal(alone.table, together.table));
  }
  at::set_num_threads(before);
}

TEST_CASE("what is no matrix of trits is not coded") {
  const at::Tensor trits = at::zeros({2, 3}, at::kChar);
  at::Tensor two = trits.clone();
  two[1][1] = 2;
  CHECK_THROWS_AS(encode_trits(kWords, two), InternalError);
  CHECK_THROWS_AS(encode_trits(kWords, trits[0]), InternalError);
  CHECK_THROWS_AS(encode_trits(kWords, trits.to(at::kByte)), InternalError);
  CHECK_THROWS_AS(encode_trits(PackedKind::kInt, trits), InternalError);
}

TEST_CASE("coded matrices whose parts do not fit are refused") {
  for (const PackedKind kind : {kWords, kHuffman}) {
    const at::Tensor trits = seeded_trits(3, 40, {0.8, 0.1}, 1);
    const PackedMatrix sound =
        loaded_trits(stored_trits(encode_trits(kind, trits), 40));
    const auto refused = [&](const std::function<void(PackedMatrix&)>& change) {
      PackedMatrix m = sound;
      change(m);
      CHECK_THROWS_AS(check_packed(m), InternalError);
    };
    refused([](auto& m) { m.row_begin = at::Tensor(); });
    refused([](auto& m) { m.table = at::Tensor(); });
    refused([](auto& m) { m.row_begin = m.row_begin.to(at::kInt); });
    refused([](auto& m) { m.row_begin = m.row_begin.narrow(0, 0, 3); });
    refused([](auto& m) { m.row_begin = m.row_begin.view({2, 2}); });
    refused([](auto& m) { m.table = m.table.narrow(0, 0, 40); });
    refused([](auto& m) { m.table = m.table.to(at::kChar); });
    refused([](auto& m) {
      m.table = at::cat({m.table, m.table}).narrow(0, 1, m.table.numel());
    });
    refused([](auto& m) { m.bits = 2; });
    refused([](auto& m) { m.rows = 4; });
    CHECK_THROWS_AS(decode_trits(sound, 2, 2), InternalError);
  }
}

}  // namespace fettle::kernels
