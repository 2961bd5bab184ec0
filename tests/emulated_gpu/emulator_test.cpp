// SPDX-License-Identifier: Apache-2.0
#include "emulator.h"

#include <catch2/catch.hpp>
#include <stdexcept>
#include <vector>

namespace fettle::kernels::emulated {
namespace {

TEST_CASE("every thread of every block runs once and knows where it stands") {
  std::vector<int> runs(3 * 2 * 128);
  run({3, 2}, 128, [&] {
    REQUIRE(place.threads.x == 128);
    REQUIRE((place.blocks.x == 3 && place.blocks.y == 2));
    const unsigned block = place.block.y * 3 + place.block.x;
    ++runs[block * 128 + place.thread.x];
  });
  CHECK(runs == std::vector<int>(runs.size(), 1));
}

TEST_CASE("a barrier lets no thread go before all are there") {
  int here = 0;
  std::vector<int> seen(256);
  run({1}, 256, [&] {
    ++here;
    wait_for_block();
    seen[place.thread.x] = here;
    wait_for_block();
    ++here;
  });
  CHECK(seen == std::vector<int>(256, 256));
  CHECK(here == 512);
}

TEST_CASE("lanes of a warp exchange what they hold, warps by themselves") {
  std::vector<float> sums(128), expected(128);
  // Warps exchange unlike numbers of times.
  run({1}, 128, [&] {
    const unsigned warp = place.thread.x / place.warp;
    auto value = static_cast<float>(place.thread.x);
    for (unsigned turn = 0; turn <= warp; ++turn) {
      for (int mask = place.warp / 2; mask > 0; mask /= 2) {
        value += shuffle_xor(value, mask);
      }
    }
    sums[place.thread.x] = value;
  });
  const int warp = place.warp;
  for (int t = 0; t < 128; ++t) {
    const int first = t / warp * warp;
    float sum = 0;
    for (int lane = first; lane < first + warp; ++lane) {
      sum += static_cast<float>(lane);
    }
    for (int turn = 0; turn < t / warp; ++turn) sum *= static_cast<float>(warp);
    expected[t] = sum;
  }
  CHECK(sums == expected);
}

TEST_CASE("threads that wait for others that never come are found out") {
  CHECK_THROWS_AS(
      run({1},
          128,
          [] {
            if (place.thread.x % 2 == 0) {
              wait_for_block();
            } else {
              shuffle_xor(1, 1);
            }
          }),
      std::logic_error);
  // An exchange that a lane of the warp has no part in.
  CHECK_THROWS_AS(
      run({1},
          128,
          [] {
            if (place.thread.x > 0) shuffle_xor(1, 1);
          }),
      std::logic_error);
  CHECK_THROWS_AS(run({1}, 100, [] {}), std::logic_error);
}

TEST_CASE("a thread that has ended is not waited for at a barrier") {
  int passed = 0;
  run({1}, 64, [&] {
    if (place.thread.x < 10) return;
    wait_for_block();
    ++passed;
  });
  CHECK(passed == 54);
}

}  // namespace
}  // namespace fettle::kernels::emulated
