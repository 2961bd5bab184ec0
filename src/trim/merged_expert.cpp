// SPDX-License-Identifier: Apache-2.0
#include "trim/merged_expert.h"

#include "trim/assignment.h"

namespace fettle::trim {

std::vector<std::int64_t> matched_neurons(
    const ExpertTensors& like, const ExpertTensors& other) {
  const auto wide = [](const at::Tensor& tensor) {
    return tensor.to(at::kDouble);
  };
  const at::Tensor cost = (at::mm(wide(like.gate), wide(other.gate).t()) +
                           at::mm(wide(like.up), wide(other.up).t()) +
                           at::mm(wide(like.down).t(), wide(other.down)))
                              .neg()
                              .contiguous();
  return assign(
      {cost.const_data_ptr<double>(), static_cast<std::size_t>(cost.numel())},
      cost.size(0));
}

void MergedExpert::add(const ExpertTensors& expert, double weight) {
  const at::NoGradGuard no_grad;
  ExpertTensors other = expert;
  if (!first_.gate.defined()) {
    first_ = expert;
    sum_ = {
        at::zeros(expert.gate.sizes(), at::kDouble),
        at::zeros(expert.up.sizes(), at::kDouble),
        at::zeros(expert.down.sizes(), at::kDouble)};
  } else if (align_) {
    const at::Tensor order =
        at::tensor(matched_neurons(first_, expert), at::kLong);
    other = {
        expert.gate.index_select(0, order),
        expert.up.index_select(0, order),
        expert.down.index_select(1, order)};
  }
  sum_.gate.add_(other.gate.to(at::kDouble), weight);
  sum_.up.add_(other.up.to(at::kDouble), weight);
  sum_.down.add_(other.down.to(at::kDouble), weight);
  weight_ += weight;
}

ExpertTensors MergedExpert::mean() const {
  const at::ScalarType type = first_.gate.scalar_type();
  return {
      (sum_.gate / weight_).to(type),
      (sum_.up / weight_).to(type),
      (sum_.down / weight_).to(type)};
}

}  // namespace fettle::trim
