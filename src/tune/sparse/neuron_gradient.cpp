// SPDX-License-Identifier: Apache-2.0
#include "tune/sparse/neuron_gradient.h"

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
  const std::int64_t width = view.h.size(1);
  const std::int64_t count = columns.size(0);
  FETTLE_ASSERT(into.size(1) == count);
  if (view.x.is_cpu()) {
    add_product(into[0], view.d_gate_up, columns, view.x);
    add_product(into[1], view.d_gate_up, columns + width, view.x);
  } else {
    // In one product: what a card spends on it is launches.
    const at::Tensor both = at::cat({columns, columns + width});
    const at::Tensor chosen = view.d_gate_up.index_select(1, both).t();
    into.narrow(0, 0, 2).add_(
        at::mm(chosen, view.x).view({2, count, view.x.size(1)}));
  }
  add_product(into[2], view.h, columns, view.dy);
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
  const std::int64_t width = view.h.size(1);
  const at::Tensor inner = product_row_norms(view.d_gate_up, view.x);
  return product_row_norms(view.h, view.dy)
      .add_(inner.narrow(0, 0, width))
      .add_(inner.narrow(0, width, width));
}

}  // namespace fettle::tune
