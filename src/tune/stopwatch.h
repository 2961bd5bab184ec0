// SPDX-License-Identifier: Apache-2.0
// Seconds that a piece of work takes.
#pragma once

#include <chrono>

namespace fettle::tune {

class Stopwatch {
 public:
  // Since it was made.
  double seconds() const {
    return std::chrono::duration<double>(Clock::now() - start_).count();
  }

 private:
  using Clock = std::chrono::steady_clock;
  Clock::time_point start_ = Clock::now();
};

}  // namespace fettle::tune
