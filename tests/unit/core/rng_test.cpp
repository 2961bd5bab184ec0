// SPDX-License-Identifier: Apache-2.0
#include "core/rng.h"

#include <algorithm>
#include <catch2/catch.hpp>
#include <cmath>
#include <map>
#include <numeric>
#include <vector>

#include "core/error.h"

using fettle::philox4x32;
using fettle::Rng;
using Block = std::array<std::uint32_t, 4>;

TEST_CASE("the generator's blocks are the published ones") {
  // Known answers of Random123, philox4x32 with 10 rounds.
  CHECK(
      philox4x32({0, 0, 0, 0}, {0, 0}) ==
      Block{0x6627e8d5, 0xe169c58d, 0xbc57ac4c, 0x9b00dbd8});
  constexpr std::uint32_t ones = 0xffffffff;
  CHECK(
      philox4x32({ones, ones, ones, ones}, {ones, ones}) ==
      Block{0x408f276d, 0x41c83b0e, 0xa20bc7c6, 0x6d5451fd});
  CHECK(
      philox4x32(
          {0x243f6a88, 0x85a308d3, 0x13198a2e, 0x03707344},
          {0xa4093822, 0x299f31d0}) ==
      Block{0xd16cfe09, 0x94fdcceb, 0x5001e420, 0x24126ea1});
}

TEST_CASE("a stream is its seed's blocks in order") {
  Rng rng(0, 0);
  CHECK(rng.next() == 0xe169c58d6627e8d5);
  CHECK(rng.next() == 0x9b00dbd8bc57ac4c);
  const Block second = philox4x32({1, 0, 0, 0}, {0, 0});
  CHECK(rng.next() == (second[0] | std::uint64_t{second[1]} << 32));
  const Block other = philox4x32({0, 0, 9, 2}, {7, 1});
  CHECK(
      Rng(0x100000007, 0x200000009).next() ==
      (other[0] | std::uint64_t{other[1]} << 32));
}

TEST_CASE("a saved state continues where it was taken") {
  for (int drawn = 0; drawn < 5; ++drawn) {
    Rng rng(42, 3);
    for (int i = 0; i < drawn; ++i) rng.next();
    Rng restored(rng.state());
    CHECK(rng.state().position == static_cast<std::uint64_t>(drawn));
    for (int i = 0; i < 5; ++i) CHECK(restored.next() == rng.next());
  }
}

TEST_CASE("uniforms fill [0, 1) evenly") {
  Rng rng(1);
  constexpr int kDraws = 100000;
  std::array<int, 10> bins{};
  for (int i = 0; i < kDraws; ++i) {
    const double u = rng.uniform();
    REQUIRE(u >= 0);
    REQUIRE(u < 1);
    ++bins[static_cast<std::size_t>(u * 10)];
  }
  // A bin's deviation is sqrt(n p (1-p)) = 95: five of them.
  for (const int count : bins) CHECK(std::abs(count - kDraws / 10) < 475);
}

TEST_CASE("limits that don't divide 2^64 are drawn without bias") {
  Rng rng(5);
  CHECK(rng.below(1) == 0);
  // Of 3 * 2^62 values, a plain remainder would give the lowest quarter of
  // them half of all draws more; the deviation of the count is 65.
  constexpr std::uint64_t limit = 3ULL << 62;
  int low = 0;
  for (int i = 0; i < 20000; ++i) {
    const std::uint64_t value = rng.below(limit);
    REQUIRE(value < limit);
    if (value < (1ULL << 62)) ++low;
  }
  CHECK(std::abs(low - 20000 / 3) < 330);
  CHECK_THROWS_AS(rng.below(0), fettle::InternalError);
}

TEST_CASE("normals have the distribution's moments and tails") {
  Rng rng(11);
  constexpr int kDraws = 200000;
  double sum = 0;
  double squares = 0;
  double fourths = 0;
  int beyond_two = 0;
  for (int i = 0; i < kDraws; ++i) {
    const double x = rng.normal();
    sum += x;
    squares += x * x;
    fourths += x * x * x * x;
    if (std::abs(x) > 2) ++beyond_two;
  }
  // Five standard deviations of each estimate: 1, sqrt 2, sqrt 96 and
  // sqrt(p (1-p)), each over sqrt(kDraws).
  CHECK(std::abs(sum / kDraws) < 0.0112);
  CHECK(std::abs(squares / kDraws - 1) < 0.0159);
  CHECK(std::abs(fourths / kDraws - 3) < 0.110);
  CHECK(std::abs(beyond_two / double{kDraws} - 0.0455003) < 0.00234);
}

TEST_CASE("each normal inverts the distribution function of its draw") {
  Rng words(17, 2);
  Rng normals(17, 2);
  for (int i = 0; i < 20000; ++i) {
    const double p = (static_cast<double>(words.next() >> 12) + 0.5) * 0x1p-52;
    const double x = normals.normal();
    const double back = x < 0 ? std::erfc(-x / std::sqrt(2.0)) / 2
                              : 1 - std::erfc(x / std::sqrt(2.0)) / 2;
    // AS 241 promises 1e-16 of x; p moves by the density, at most 0.4, times
    // x; the rest is the rounding of erfc.
    REQUIRE(std::abs(back - p) < 2e-15);
  }
}

TEST_CASE("normals have the same bits on every platform") {
  Rng rng(2024);
  for (const double expected :
       {-0x1.3bfceaac35995p-1,
        -0x1.619bbe77b658ep+0,
        -0x1.4a854cfc23d3dp-3,
        -0x1.72debb342b3acp-4,
        -0x1.a6da2d06844e9p+0}) {
    CHECK(rng.normal() == expected);
  }
}

TEST_CASE("the far tails are reached and right") {
  // States whose next draw is known, found by running the generator backwards,
  // and the quantiles that another implementation of AS 241 gives for them.
  const auto normal_at = [](std::uint64_t stream, std::uint64_t position) {
    return Rng(Rng::State{7, stream, position}).normal();
  };
  // Two roundings of a result near 8: 2 * 2^-50.
  constexpr double tolerance = 1.8e-15;
  CHECK(
      std::abs(
          normal_at(0x29b764410436bb5a, 0x108c939ab1c8358a) +
          8.014015948775544) < tolerance);
  CHECK(
      std::abs(
          normal_at(0xf5bf176a6ec2f8f0, 0x4ad33a906f5ad4e4) -
          8.014015948775544) < tolerance);
  CHECK(
      std::abs(
          normal_at(0xbf2c188de922eeb6, 0x22fffdc19ccbfb44) +
          6.723313423749043) < tolerance);
  CHECK(
      std::abs(
          normal_at(0x62868c8cd7e9d537, 0x782fbe6fdd9eb62e) +
          2.1538746940614524) < tolerance);
}

TEST_CASE("a shuffle is a permutation, every one equally likely") {
  Rng rng(3);
  std::vector<int> values(1000);
  std::iota(values.begin(), values.end(), 0);
  rng.shuffle(std::span(values));
  CHECK_FALSE(std::ranges::is_sorted(values));
  std::ranges::sort(values);
  for (int i = 0; i < 1000; ++i) {
    REQUIRE(values[static_cast<std::size_t>(i)] == i);
  }
  std::map<std::vector<int>, int> counts;
  for (int i = 0; i < 24000; ++i) {
    std::vector<int> four{0, 1, 2, 3};
    rng.shuffle(std::span(four));
    ++counts[four];
  }
  CHECK(counts.size() == 24);
  // Deviation of a count: sqrt(24000/24 * 23/24) = 31; five of them.
  for (const auto& [order, count] : counts) CHECK(std::abs(count - 1000) < 155);
}
