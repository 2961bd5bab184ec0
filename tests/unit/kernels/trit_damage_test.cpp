// SPDX-License-Identifier: Apache-2.0
// Damaged codes, tables and row lengths of trits: an error, or trits that the
// slow decoder finds too.
#include <catch2/catch.hpp>
#include <cmath>
#include <random>

#include "core/error.h"
#include "kernels/trit_code.h"
#include "trit_reference.h"

namespace fettle::kernels {
namespace {

using namespace test;
using Catch::Matchers::Contains;

class Damager {
 public:
  explicit Damager(std::uint64_t seed) : random_(seed) {}

  void damage(StoredTrits& stored) {
    const std::uint64_t where = below(8);
    auto& bytes = where < 4   ? stored.codes
                  : where < 7 ? stored.table
                              : stored.row_lengths;
    switch (below(5)) {
      case 0:
        flip(bytes);
        break;
      case 1:
        for (int i = 0; i < 20; ++i) flip(bytes);
        break;
      case 2:
        bytes.resize(below(bytes.size() + 1));
        break;
      case 3:
        for (std::uint8_t& byte : bytes) byte = next_byte();
        break;
      default:
        bytes.insert(
            bytes.begin() +
                static_cast<std::ptrdiff_t>(below(bytes.size() + 1)),
            next_byte());
    }
  }
  std::uint64_t below(std::uint64_t limit) { return random_() % limit; }

 private:
  void flip(std::vector<std::uint8_t>& bytes) {
    if (bytes.empty()) return;
    bytes[below(bytes.size())] ^= static_cast<std::uint8_t>(1 << below(8));
  }
  std::uint8_t next_byte() { return static_cast<std::uint8_t>(below(256)); }

  std::mt19937_64 random_;
};

// The trits, or nothing where Fettle refuses.
std::optional<at::Tensor> decoded(const StoredTrits& stored) {
  try {
    const PackedMatrix m = loaded_trits(stored);
    check_packed(m);
    at::Tensor out = at::empty({m.rows, m.cols});
    unpack_rows(m, 0, out);
    return out.to(at::kChar);
  } catch (const UserError&) {
    return std::nullopt;
  }
}

}  // namespace

TEST_CASE("damaged codes of trits are refused or read as a slow decoder does") {
  Damager damager(1);
  int refused = 0, read = 0;
  for (int round = 0; round < 6000; ++round) {
    const double zero = round % 3 == 0 ? 0.5 : round % 3 == 1 ? 0.885 : 0.98;
    const PackedKind kind = round % 2 == 0 ? kWords : kHuffman;
    const auto rows = static_cast<std::int64_t>(damager.below(4));
    const auto cols = static_cast<std::int64_t>(damager.below(300));
    const at::Tensor trits =
        seeded_trits(rows, cols, {zero, (1 - zero) / 2}, round);
    StoredTrits stored = stored_trits(encode_trits(kind, trits), cols);
    damager.damage(stored);
    if (round % 5 == 0) damager.damage(stored);
    CAPTURE(round, rows, cols);
    const auto expected = reference_trits(stored), got = decoded(stored);
    REQUIRE(got.has_value() == expected.has_value());
    if (got.has_value()) REQUIRE(at::equal(*got, *expected));
    ++(got.has_value() ? read : refused);
  }
  CHECK(refused > 1000);
  CHECK(read > 100);
}

// What no table from a file leads to, but a caller may hold.
TEST_CASE("tables and row offsets of any bytes are no danger") {
  Damager damager(2);
  std::mt19937_64 random(3);
  for (int round = 0; round < 2000; ++round) {
    const PackedKind kind = round % 2 == 0 ? kWords : kHuffman;
    const at::Tensor trits = seeded_trits(3, 70, {0.8, 0.1}, round);
    PackedMatrix m = loaded_trits(stored_trits(encode_trits(kind, trits), 70));
    auto* table = m.table.mutable_data_ptr<std::uint8_t>();
    for (int i = 0; i < 400 && round % 3 != 0; ++i) {
      const auto at =
          damager.below(static_cast<std::uint64_t>(m.table.numel()));
      // Small values pass the check more often.
      table[at] = static_cast<std::uint8_t>(random() % (round % 7 ? 11 : 256));
    }
    if (round % 3 != 1) {
      m.row_begin[static_cast<std::int64_t>(damager.below(4))] =
          static_cast<std::int64_t>(random() % 400) - 100;
    }
    if (round % 11 == 0) m.row_begin[2] = std::int64_t{1} << 62;
    try {
      check_packed(m);
      at::Tensor out = at::empty({3, 70});
      unpack_rows(m, 0, out);
      CHECK(out.abs().le(1).all().item<bool>());
    } catch (const UserError&) {
    }
  }
}

TEST_CASE("a damaged row of coded trits is named") {
  for (const PackedKind kind : {kWords, kHuffman}) {
    const at::Tensor trits = seeded_trits(9, 500, {0.885, 0.06}, 4);
    PackedMatrix m = loaded_trits(stored_trits(encode_trits(kind, trits), 500));
    check_trit_rows(m, 0, 9);
    m.row_begin[6] = m.row_begin[6].item<std::int64_t>() + 1;
    check_packed(m);
    const auto message = Contains(
        "row 5 of a coded ternary matrix: its codes are not those of 500 "
        "weights");
    CHECK_THROWS_WITH(decode_trits(m, 0, 9), message);
    CHECK_THROWS_WITH(check_trit_rows(m, 0, 9), message);
    CHECK_THROWS_WITH(unpack_rows(m, 2, at::empty({5, 500})), message);
    const PackedProduct one{&m, at::ones({1, 500}), at::ones({1, 9})};
    CHECK_THROWS_WITH(packed_products({&one, 1}), message);
    check_trit_rows(m, 0, 5);
    check_trit_rows(m, 7, 2);
  }
}

TEST_CASE("damaged tables of trits are refused") {
  const auto refused = [](PackedKind kind,
                          const std::vector<std::uint8_t>& table,
                          const std::string& message) {
    CHECK_THROWS_AS(
        prepare_trit_table(kind, tensor_of_bytes(table)), UserError);
    CHECK_THROWS_WITH(
        prepare_trit_table(kind, tensor_of_bytes(table)), Contains(message));
  };
  refused(kWords, {}, "no tree of words");
  refused(kWords, {0}, "no tree of words");     // a word of no trits
  refused(kWords, {0xff}, "no tree of words");  // bits run out
  refused(kWords, {1, 0}, "bytes left over");
  refused(kWords, {0x11}, "bytes left over");  // no zeros fill it up
  refused(kWords, std::vector<std::uint8_t>(2000), "too long");
  // All 1024 words and one node more: a tree of six levels has 729 words.
  refused(kWords, std::vector<std::uint8_t>(300, 0xff), "no tree of words");
  // Lengths 1, 2, 3 leave bits without a code; 1, 1, 2 have too many.
  refused(kHuffman, {0x11, 0x32}, "no code has such lengths");
  refused(kHuffman, {0x11, 0x21}, "no code has such lengths");
  refused(kHuffman, {0x01, 0x22}, "no code has such lengths");
  refused(kHuffman, {0xb1, 0x11}, "no code has such lengths");  // 11, 1, 1
  refused(kHuffman, {0x01}, "no code has such lengths");
  prepare_trit_table(kHuffman, tensor_of_bytes({0x11, 0x10}));  // 1, 0, 1
  prepare_trit_table(kHuffman, tensor_of_bytes({0x11, 0x22}));
  prepare_trit_table(kWords, tensor_of_bytes({1}));
}

TEST_CASE("damaged tables in memory are refused") {
  const at::Tensor trits = seeded_trits(3, 70, {0.8, 0.1}, 1);
  const auto refused = [&](PackedKind kind, std::int64_t at, int value) {
    PackedMatrix m = loaded_trits(stored_trits(encode_trits(kind, trits), 70));
    m.table[at] = value;
    CHECK_THROWS_AS(check_packed(m), UserError);
  };
  refused(kWords, 8 * 3 + 6, 224);
  refused(kHuffman, 8 * 255 + 7, 225);
  refused(kHuffman, 8 * 256 + 2 * 1023, 11);
}

TEST_CASE("row lengths are stored in few bits, and damaged ones refused") {
  const auto long_tensor = [](std::vector<std::int64_t> values) {
    return at::tensor(values, at::kLong);
  };
  const at::Tensor begin = long_tensor({0, 300, 601, 900, 1203});
  const at::Tensor stored = encode_row_lengths(begin);
  // 299 = 0x12b, three bits each: 1, 2, 0, 4.
  CHECK(at::equal(
      stored, at::tensor({0x2b, 1, 0, 0, 3, 0b00010001, 0b1000}, at::kByte)));
  CHECK(at::equal(decode_row_lengths(stored, 4, 1203), begin));
  // Rows of one length take five bytes, however many.
  CHECK(encode_row_lengths(at::arange(1000, at::kLong) * 7).numel() == 5);
  CHECK(at::equal(
      decode_row_lengths(encode_row_lengths(long_tensor({0})), 0, 0),
      long_tensor({0})));
  const at::Tensor wide = long_tensor({0, 0, 0xffffffff});
  CHECK(at::equal(
      decode_row_lengths(encode_row_lengths(wide), 2, 0xffffffff), wide));
  const auto refused = [](const at::Tensor& bytes,
                          std::int64_t rows,
                          std::int64_t codes,
                          const std::string& message) {
    CHECK_THROWS_AS(decode_row_lengths(bytes, rows, codes), UserError);
    CHECK_THROWS_WITH(
        decode_row_lengths(bytes, rows, codes), Contains(message));
  };
  refused(stored, 4, 1204, "rows have 1203 bytes and codes 1204");
  refused(stored, 4, 1202, "row 3 ends behind the codes' 1202 bytes");
  refused(stored, 4, 1000, "rows longer than all codes");
  refused(stored, 3, 900, "bytes behind the last row");
  refused(stored.narrow(0, 0, 6), 4, 1203, "bytes missing");
  refused(stored.narrow(0, 0, 4), 4, 1203, "no such head");
  refused(tensor_of_bytes({0, 0, 0, 0, 33}), 0, 0, "no such head");
  refused(
      tensor_of_bytes({1, 0, 0, 0, 0}),
      std::int64_t{1} << 40,
      8,
      "rows longer than all codes");
  CHECK_THROWS_AS(encode_row_lengths(long_tensor({0, 5, 3})), InternalError);
}

}  // namespace fettle::kernels
