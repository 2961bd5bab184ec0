// SPDX-License-Identifier: Apache-2.0
// Compares the values of an exported folder, weight by weight, with those that
// were meant.
#pragma once

#include <ATen/ATen.h>

#include <filesystem>
#include <string>
#include <vector>

namespace fettle::exporter {

// By how much the nearest values that were possible may differ: half a step of
// 8 signed bits, and what the step's own rounding adds.
inline constexpr double kNearestError = 1.0 / 250;

// The largest difference, relative to the largest value meant.
double relative_error(const at::Tensor& found, const at::Tensor& meant);

// A weight that a format holds only changed.
struct InexactWeight {
  std::string name;
  std::string lost;     // "has scales that … can't hold"
  std::string instead;  // what to do but to round: "use …"
};

// Whether a weight is changed: `error` is the most, relative to its largest
// value. Throws UserError where it is more than `nearest` allows.
bool is_rounded(double error, bool nearest, const InexactWeight& weight);

class ValueCheck {
 public:
  // `nearest`: values may differ by kNearestError.
  ValueCheck(std::filesystem::path file, bool nearest);

  // Throws InternalError naming the weight when values differ by more than they
  // may.
  void compare(
      const std::string& weight,
      const at::Tensor& found,
      const at::Tensor& meant);

  // Largest difference, relative to its weight's largest value.
  double largest() const { return largest_; }

 private:
  std::filesystem::path file_;
  bool nearest_;
  double largest_ = 0;
};

// `tensor` with zeros behind it, in the larger `shape`.
at::Tensor filled_up(
    const at::Tensor& tensor, const std::vector<std::int64_t>& shape);

}  // namespace fettle::exporter
