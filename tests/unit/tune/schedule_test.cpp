// SPDX-License-Identifier: Apache-2.0
#include "tune/part/schedule.h"

#include <catch2/catch.hpp>

using namespace fettle::tune;

TEST_CASE("the rate rises in equal steps to the peak") {
  const Schedule schedule{0.8, 4, 104, 0.1};
  CHECK(learning_rate(schedule, 0) == Approx(0.2));
  CHECK(learning_rate(schedule, 1) == Approx(0.4));
  CHECK(learning_rate(schedule, 3) == Approx(0.8));
  CHECK(learning_rate(schedule, 4) == Approx(0.8));
}

TEST_CASE("the rate falls by a cosine to the floor and stays") {
  const Schedule schedule{0.8, 4, 104, 0.25};
  CHECK(learning_rate(schedule, 54) == Approx(0.5));  // half way: the mean
  CHECK(learning_rate(schedule, 104) == Approx(0.2));
  CHECK(learning_rate(schedule, 500) == Approx(0.2));
  // A third of the way a half cosine has done a quarter of its fall.
  CHECK(learning_rate({1.0, 0, 3, 0.0}, 1) == Approx(0.75));
}

TEST_CASE("a run of warm-up alone never decays") {
  const Schedule schedule{1.0, 10, 5, 0.0};
  CHECK(learning_rate(schedule, 4) == Approx(0.5));
}

TEST_CASE("the share to drop falls to nothing at the end") {
  CHECK(cosine_fall(0.3, 0, 100) == Approx(0.3));
  CHECK(cosine_fall(0.3, 50, 100) == Approx(0.15));
  CHECK(cosine_fall(0.3, 100, 100) == Approx(0.0).margin(1e-15));
}
