// SPDX-License-Identifier: Apache-2.0
// Seconds that pieces of work take.
#pragma once

#include <atomic>
#include <chrono>
#include <cstdint>

namespace fettle {

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

// The sum of what several threads take.
class TimeSpent {
 public:
  double seconds() const {
    return 1e-9 * static_cast<double>(nanoseconds_.load());
  }

  // Adds the time that it exists.
  class Piece {
   public:
    explicit Piece(TimeSpent& sum) : sum_(sum) {}
    ~Piece() {
      sum_.nanoseconds_ += static_cast<std::int64_t>(1e9 * watch_.seconds());
    }
    Piece(const Piece&) = delete;
    Piece& operator=(const Piece&) = delete;

   private:
    TimeSpent& sum_;
    Stopwatch watch_;
  };

 private:
  std::atomic<std::int64_t> nanoseconds_ = 0;
};

}  // namespace fettle
