// SPDX-License-Identifier: Apache-2.0
#include "tune/sparse/neuron_gradient.h"

#include <vector>

#include "core/error.h"

namespace fettle::tune {

namespace {

// sum += left[:, which]ᵀ right, of the narrow types' products in fp32.
void add_product(
    at::Tensor sum,
    const at::Tensor& left,
    const at::Tensor& which,
    const at::Tensor& right) {
  const at::Tensor chosen = left.index_select(1, which).t();
  if (right.scalar_type() == at::kFloat) {
    sum.addmm_(chosen, right);
  } else {
    sum.add_(at::mm(chosen, right));
  }
}

}  // namespace

void add_neuron_gradient(
    const model::ExpertGradView& view,
    const at::Tensor& columns,
    at::Tensor into) {
  const at::NoGradGuard no_grad;
  const std::int64_t count = columns.size(0);
  const std::int64_t inputs = view.inputs();
  FETTLE_ASSERT(into.size(0) == inputs + 1 && into.size(1) == count);
  std::vector<at::Tensor> places;
  for (std::int64_t p = 0; p < inputs; ++p) {
    places.push_back(p == 0 ? columns : columns + p * view.width());
  }
  if (view.x.is_cpu()) {
    for (std::int64_t p = 0; p < inputs; ++p) {
      add_product(into[p], view.d_gate_up, places[p], view.x);
    }
  } else {
    // In one product: what a card spends on it is launches.
    const at::Tensor chosen =
        view.d_gate_up.index_select(1, at::cat(places)).t();
    into.narrow(0, 0, inputs)
        .add_(at::mm(chosen, view.x).view({inputs, count, view.x.size(1)}));
  }
  add_product(into[inputs], view.h, columns, view.dy);
}

at::Tensor product_row_norms(const at::Tensor& left, const at::Tensor& right) {
  const at::NoGradGuard no_grad;
  const std::int64_t n = left.size(0);
  const std::int64_t c = left.size(1);
  const std::int64_t width = right.size(1);
  if (n * (width + c) < c * width) {
    const at::Tensor gram = at::mm(right, right.t());
    // Rounding may leave a tiny negative number where the norm is zero.
    return at::mm(gram, left)
        .mul_(left)
        .sum(0, false, at::kFloat)
        .clamp_min_(0.0);
  }
  return at::mm(left.t(), right).square_().sum(1, false, at::kFloat);
}

at::Tensor neuron_gradient_norms(const model::ExpertGradView& view) {
  const at::Tensor inner = product_row_norms(view.d_gate_up, view.x);
  at::Tensor norms = product_row_norms(view.h, view.dy);
  for (const at::Tensor& input : inner.split(view.width())) norms.add_(input);
  return norms;
}

}  // namespace fettle::tune
