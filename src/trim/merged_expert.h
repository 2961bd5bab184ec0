// SPDX-License-Identifier: Apache-2.0
// One expert made of several.
#pragma once

#include <ATen/ATen.h>

#include <vector>

namespace fettle::trim {

struct ExpertTensors {
  at::Tensor gate;  // [I, H], or undefined
  at::Tensor up;    // [I, H]
  at::Tensor down;  // [H, I]
  // [I], or undefined
  at::Tensor gate_bias = {};
  at::Tensor up_bias = {};
};

// The order of `other`'s neurons in which they are most like those of `like`:
// the sum over neurons of the products of all their weights is greatest.
std::vector<std::int64_t> matched_neurons(
    const ExpertTensors& like, const ExpertTensors& other);

// Running weighted mean of experts, in fp64.
class MergedExpert {
 public:
  // `align`: neurons are brought into the order of the first expert's.
  explicit MergedExpert(bool align) : align_(align) {}

  void add(const ExpertTensors& expert, double weight);
  // The mean, in the type of the first expert.
  ExpertTensors mean() const;

 private:
  bool align_;
  ExpertTensors first_;
  ExpertTensors sum_;
  double weight_ = 0;
};

}  // namespace fettle::trim
