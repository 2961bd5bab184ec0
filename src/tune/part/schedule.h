// SPDX-License-Identifier: Apache-2.0
// The learning rate of a step: a linear warm-up, then half a cosine down to a
// floor, where it stays.
#pragma once

#include <cstdint>

namespace fettle::tune {

struct Schedule {
  double peak = 0.0;
  std::int64_t warmup_steps = 0;
  std::int64_t steps = 0;    // the whole run; the floor is met at its end
  double floor_ratio = 0.0;  // floor / peak
};

// Rate of step `step`, counted from 0. Warm-up step s has peak (s + 1) /
// warmup_steps; the cosine starts at the peak on step warmup_steps and would
// meet the floor on step `steps`.
double learning_rate(const Schedule& schedule, std::int64_t step);

// RigL's share of chosen units to exchange on step `step`: `initial` at 0,
// falling by half a cosine to 0 on step `steps`.
// Source: Evci et al., "Rigging the Lottery", ICML 2020, section 3(2).
double cosine_fall(double initial, std::int64_t step, std::int64_t steps);

}  // namespace fettle::tune
