// SPDX-License-Identifier: Apache-2.0
#include "kernels/crowd_guard.h"

#include <catch2/catch.hpp>

using fettle::kernels::core_time;
using fettle::kernels::CoreTime;
using fettle::kernels::CrowdGuard;
using fettle::kernels::CrowdSense;
using fettle::kernels::missing_cores;

namespace {

constexpr std::int64_t kMillisecond = 1'000'000;

// A machine on which a sample is taken every 50 ms, and threads outnumber the
// cores by `missing`.
class Machine {
 public:
  // Loading the program took 900 ms, of which it waited `percent`.
  explicit Machine(int percent = 0, std::optional<std::int64_t> missing = 1)
      : missing_(missing),
        waited_(9 * percent * kMillisecond),
        sense_(
            {now_,
             CoreTime{900 * kMillisecond - waited_, waited_, 1},
             missing}) {}
  bool crowded() const { return sense_.crowded(); }
  // Threads waited for `percent` of the time since the last sample.
  bool sample(int percent) {
    now_ += 50 * kMillisecond;
    waited_ += percent * kMillisecond / 2;
    return sense_.crowded({now_, CoreTime{0, waited_, 1}, missing_});
  }
  // Milliseconds until a machine without waiting is no longer crowded.
  int calms_in() {
    int samples = 1;
    while (sample(0)) ++samples;
    return 50 * samples;
  }
  void stay_calm(int samples) {
    for (int i = 0; i < samples; ++i) REQUIRE_FALSE(sample(0));
  }

 private:
  std::int64_t now_ = 7 * kMillisecond;
  std::optional<std::int64_t> missing_;
  std::int64_t waited_;
  CrowdSense sense_;
};

}  // namespace

TEST_CASE("A machine is crowded when threads wait for a quarter of the time") {
  Machine machine;
  CHECK_FALSE(machine.sample(20));
  CHECK(machine.sample(30));
  for (int i = 0; i < 100; ++i) REQUIRE(machine.sample(4));
  CHECK(machine.calms_in() == 300);
}

TEST_CASE("A machine is crowded from the start when loading had to wait") {
  CHECK_FALSE(Machine(8).crowded());
  CHECK(Machine(60, std::nullopt).crowded());
  Machine machine(60);
  CHECK(machine.crowded());
  CHECK(machine.calms_in() == 300);
}

TEST_CASE("Threads that waited for each other alone crowd no machine") {
  Machine machine(60, 0);
  CHECK_FALSE(machine.crowded());
  CHECK_FALSE(machine.sample(60));
}

TEST_CASE("Cores are missing where threads of other programs take them") {
  const auto few = missing_cores(1);
  const auto many = missing_cores(1'001);
  REQUIRE(few.has_value() == many.has_value());
  // Other programs come and go in between, but not by hundreds.
  if (few) CHECK(*many > *few + 500);
}

TEST_CASE("Crowding ends after a calm while, which doubles when too short") {
  Machine machine;
  machine.sample(0);
  for (const int expected : {300, 600, 1200}) {
    REQUIRE(machine.sample(60));
    CHECK(machine.calms_in() == expected);
  }
  machine.stay_calm(100);
  REQUIRE(machine.sample(60));
  CHECK(machine.calms_in() == 300);
}

TEST_CASE("Without word from the kernel a machine counts as crowded") {
  CHECK(CrowdSense({kMillisecond, std::nullopt, 0}).crowded());
  CrowdSense sense({0, CoreTime{kMillisecond, 0, 1}, 1});
  CHECK_FALSE(sense.crowded());
  CHECK(sense.crowded({kMillisecond, std::nullopt, 1}));
}

TEST_CASE("Time of threads on cores and without one only grows") {
  const auto before = core_time();
  const auto after = core_time();
  REQUIRE(before.has_value() == after.has_value());
  if (before) CHECK(after->waited >= before->waited);
  if (before) CHECK(after->ran >= before->ran);
  if (before) CHECK(before->threads > 0);
}

TEST_CASE("Guards come and go, with teams of any size") {
  for (const int threads : {1, 2, 3}) {
    const CrowdGuard one(threads);
    const CrowdGuard another(threads);
  }
}
