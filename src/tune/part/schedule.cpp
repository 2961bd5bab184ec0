// SPDX-License-Identifier: Apache-2.0
#include "tune/part/schedule.h"

#include <algorithm>
#include <cmath>
#include <numbers>

namespace fettle::tune {

namespace {

// From 1 at `part` = 0 to 0 at `part` = 1 and beyond.
double half_cosine(double part) {
  return 0.5 * (1.0 + std::cos(std::numbers::pi * std::clamp(part, 0.0, 1.0)));
}

}  // namespace

double learning_rate(const Schedule& schedule, std::int64_t step) {
  if (step < schedule.warmup_steps) {
    return schedule.peak * static_cast<double>(step + 1) /
           static_cast<double>(schedule.warmup_steps);
  }
  const std::int64_t decay =
      std::max<std::int64_t>(schedule.steps - schedule.warmup_steps, 1);
  const double part = static_cast<double>(step - schedule.warmup_steps) /
                      static_cast<double>(decay);
  const double floor = schedule.peak * schedule.floor_ratio;
  return floor + (schedule.peak - floor) * half_cosine(part);
}

double cosine_fall(double initial, std::int64_t step, std::int64_t steps) {
  const double part = static_cast<double>(step) /
                      static_cast<double>(std::max<std::int64_t>(steps, 1));
  return initial * half_cosine(part);
}

}  // namespace fettle::tune
