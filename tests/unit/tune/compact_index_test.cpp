// SPDX-License-Identifier: Apache-2.0
#include "tune/sparse/compact_index.h"

#include <catch2/catch.hpp>
#include <cmath>

#include "core/error.h"
#include "core/rng.h"

using namespace fettle;
using namespace fettle::tune;
using Catch::Contains;

namespace {

at::Tensor numbers(std::vector<std::int64_t> values) {
  return at::tensor(values, at::kLong);
}

// Each of `all` numbers with probability `share`.
at::Tensor drawn(std::int64_t all, double share, std::uint64_t seed) {
  Rng rng(seed);
  std::vector<std::int64_t> chosen;
  for (std::int64_t i = 0; i < all; ++i) {
    if (rng.uniform() < share) chosen.push_back(i);
  }
  return numbers(chosen);
}

// Bytes of information of a number, where a share `f` was drawn.
double information(double f) {
  return -(std::log2(f) + (1.0 - f) / f * std::log2(1.0 - f)) / 8.0;
}

double bytes_each(const CompactIndex& index) {
  return static_cast<double>(index.bytes()) / static_cast<double>(index.size());
}

void check_round_trip(const at::Tensor& index, std::int64_t limit) {
  const CompactIndex compact(index);
  CHECK(compact.size() == index.size(0));
  CHECK(compact.decode().equal(index));
  const CompactIndex back =
      CompactIndex::from_stored(compact.stored(), "i", limit);
  CHECK(back.size() == index.size(0));
  CHECK(back.decode().equal(index));
}

}  // namespace

TEST_CASE("the codes of a few numbers are those that Rice gives") {
  // Gaps less one: 2, 0, 5. Beside a one for each, their codes take 7 bits with
  // k = 0, 6 with k = 1 and 7 with k = 2.
  const CompactIndex index(numbers({2, 3, 9}));
  const at::Tensor stored = index.stored();
  const auto* bytes = stored.const_data_ptr<std::uint8_t>();
  REQUIRE(stored.numel() == 8 + 2 + 8);
  CHECK(bytes[0] == 3);
  // In the order of bits: 100000 for k, then 01 0, 1 0, 001 1.
  CHECK(bytes[8] == 0b10000001);
  CHECK(bytes[9] == 0b01100010);
  CHECK(index.decode().equal(numbers({2, 3, 9})));
}

TEST_CASE("any set of numbers comes back") {
  check_round_trip(numbers({}), 0);
  check_round_trip(numbers({}), 10);
  check_round_trip(numbers({0}), 1);
  check_round_trip(
      numbers({(std::int64_t{1} << 61) - 1}), std::int64_t{1} << 61);
  check_round_trip(numbers({0, 1, 2, 1'000'000'000'000}), 1'000'000'000'001);
  check_round_trip(at::arange(1000, at::kLong), 1000);
  for (const std::int64_t count : {255, 256, 257, 512, 513}) {
    check_round_trip(at::arange(0, 7 * count, 7, at::kLong), 7 * count);
  }
  for (const double share : {0.0003, 0.02, 0.5, 0.97}) {
    check_round_trip(drawn(50000, share, 3), 50000);
  }
  // Dense and empty stretches by turns.
  at::Tensor turns = drawn(100000, 0.4, 4);
  turns = turns.masked_select(at::floor_divide(turns, 1000).remainder(7).eq(0));
  check_round_trip(turns, 100000);
}

TEST_CASE("a number takes hardly more than its information") {
  struct Row {
    double share;
    double most;  // bytes a number
  };
  // Below about 1 % the information alone is more than a byte.
  for (const Row& row :
       {Row{0.005, 1.15}, Row{0.01, 1.03}, Row{0.05, 0.75}, Row{0.2, 0.47}}) {
    const CompactIndex index(drawn(4'000'000, row.share, 5));
    const double each = bytes_each(index);
    WARN(
        100.0 * row.share << " % of the weights: " << each
                          << " bytes a chosen weight, information "
                          << information(row.share));
    CHECK(each < row.most);
    CHECK(each > information(row.share) - 0.01);
    CHECK(each < 1.03 * information(row.share));
  }
}

TEST_CASE("a choice that has clusters takes less than one without") {
  // 0.5 % of all, but 10 % of every twentieth row of 1000.
  at::Tensor some = drawn(4'000'000, 0.1, 6);
  some = some.masked_select(at::floor_divide(some, 1000).remainder(20).eq(0));
  const CompactIndex index(some);
  CHECK(index.size() > 19'000);
  CHECK(bytes_each(index) < 0.65);
  CHECK(bytes_each(index) < 0.6 * information(0.005));
  // Whole rows are a bit a weight.
  at::Tensor rows = at::arange(1'000'000, at::kLong);
  rows = rows.masked_select(at::floor_divide(rows, 1000).remainder(20).eq(0));
  CHECK(bytes_each(CompactIndex(rows)) < 0.14);
}

TEST_CASE("codes that are damaged or of another model are refused") {
  const at::Tensor whole = CompactIndex(drawn(1000, 0.1, 7)).stored();
  const auto refused = [](const at::Tensor& stored, std::int64_t limit) {
    CHECK_THROWS_WITH(
        CompactIndex::from_stored(stored, "blocks.index", limit),
        Contains("[tune] blocks.index") && Contains("damaged"));
  };
  CHECK_NOTHROW(CompactIndex::from_stored(whole, "i", 1000));
  refused(whole, 500);  // numbers too large
  refused(whole, 50);   // more numbers than there are
  refused(whole.narrow(0, 0, whole.size(0) - 1), 1000);
  refused(whole.narrow(0, 0, 12), 1000);
  refused(at::cat({whole, at::zeros({1}, at::kByte)}), 1000);
  refused(whole.to(at::kInt), 1000);
  refused(whole.view({1, -1}), 1000);
  at::Tensor more = whole.clone();
  more[0].add_(1);  // one number more than the codes have
  refused(more, 1000);
  at::Tensor many = whole.clone();
  many.narrow(0, 0, 8).fill_(255);
  refused(many, 1000);
  at::Tensor zeros = whole.clone();
  zeros.narrow(0, 8, zeros.size(0) - 8).zero_();
  refused(zeros, 1000);
  // No change of a byte is worse than that.
  for (std::int64_t i = 0; i < whole.size(0) - 8; ++i) {
    at::Tensor changed = whole.clone();
    changed[i].bitwise_xor_(0x55);
    try {
      const CompactIndex index = CompactIndex::from_stored(changed, "i", 1000);
      CHECK(index.decode().diff().gt(0).all().item<bool>());
    } catch (const UserError&) {
    }
  }
}
