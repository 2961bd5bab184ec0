// SPDX-License-Identifier: Apache-2.0
#include "trim/merged_expert.h"

#include "trim/assignment.h"

namespace fettle::trim {

namespace {

at::Tensor wide(const at::Tensor& tensor) { return tensor.to(at::kDouble); }

// Calls visit(tensor, other, axis) for what both experts have; `axis` is that
// of neurons.
template <class Experts, class Visit>
void for_each_pair(Experts& one, const ExpertTensors& other, Visit visit) {
  if (other.gate.defined()) visit(one.gate, other.gate, 0);
  visit(one.up, other.up, 0);
  visit(one.down, other.down, 1);
  if (!other.gate_bias.defined()) return;
  visit(one.gate_bias, other.gate_bias, 0);
  visit(one.up_bias, other.up_bias, 0);
}

}  // namespace

std::vector<std::int64_t> matched_neurons(
    const ExpertTensors& like, const ExpertTensors& other) {
  at::Tensor cost;
  for_each_pair(
      like, other, [&](const at::Tensor& a, const at::Tensor& b, int axis) {
        const auto rows = [&](const at::Tensor& x) {
          return axis == 1 ? wide(x).t() : wide(x).view({x.size(0), -1});
        };
        const at::Tensor products = at::mm(rows(a), rows(b).t());
        cost = cost.defined() ? cost + products : products;
      });
  cost = cost.neg().contiguous();
  return assign(
      {cost.const_data_ptr<double>(), static_cast<std::size_t>(cost.numel())},
      cost.size(0));
}

void MergedExpert::add(const ExpertTensors& expert, double weight) {
  const at::NoGradGuard no_grad;
  at::Tensor order;
  if (!first_.up.defined()) {
    first_ = expert;
    for_each_pair(
        sum_, expert, [](at::Tensor& sum, const at::Tensor& like, int) {
          sum = at::zeros(like.sizes(), at::kDouble);
        });
  } else if (align_) {
    order = at::tensor(matched_neurons(first_, expert), at::kLong);
  }
  for_each_pair(
      sum_, expert, [&](at::Tensor& sum, const at::Tensor& other, int axis) {
        const at::Tensor own =
            order.defined() ? other.index_select(axis, order) : other;
        sum.add_(wide(own), weight);
      });
  weight_ += weight;
}

ExpertTensors MergedExpert::mean() const {
  ExpertTensors result;
  for_each_pair(
      result, sum_, [&](at::Tensor& mean, const at::Tensor& sum, int) {
        mean = (sum / weight_).to(first_.up.scalar_type());
      });
  return result;
}

}  // namespace fettle::trim
