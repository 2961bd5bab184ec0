// SPDX-License-Identifier: Apache-2.0
// A mean in which the last ten or so values count most.
#pragma once

namespace fettle::tune {

class RunningMean {
 public:
  void add(double value) {
    sum_ = kKept * sum_ + value;
    weight_ = kKept * weight_ + 1.0;
  }
  bool empty() const { return weight_ == 0.0; }
  double value() const { return sum_ / weight_; }

 private:
  static constexpr double kKept = 0.9;
  double sum_ = 0.0;
  double weight_ = 0.0;
};

}  // namespace fettle::tune
