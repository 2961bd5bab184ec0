// SPDX-License-Identifier: Apache-2.0
#include "model/layers/projection.h"

#include <algorithm>

#include "model/layers/decoded_product.h"
#include "model/layers/packed_products.h"

namespace fettle::model {

at::Tensor Projection::operator()(
    Role role,
    const at::Tensor& x,
    const at::Tensor& weight,
    const at::Tensor& bias) const {
  if (context.tap != nullptr)
    context.tap->on_projection(context.layer, role, x);
  if (!weight.defined()) {
    const at::Tensor y =
        packed_linear(weights.packed->at(role), x, context.activations);
    return bias.defined() ? y + bias : y;
  }
  if (context.decodes()) {
    const at::Tensor y = product(x, weight.t(), {.decodes = true});
    return bias.defined() ? y + bias : y;
  }
  at::Tensor y =
      bias.defined() ? at::addmm(bias, x, weight.t()) : at::mm(x, weight.t());
  if (context.tap != nullptr && context.tap->wants_projection_gradients() &&
      y.requires_grad()) {
    y.register_hook(
        [tap = context.tap, layer = context.layer, role, seen = x.detach()](
            const at::Tensor& dy) {
          tap->on_projection_gradient(layer, role, seen, dy);
        });
  }
  return y;
}

std::vector<at::Tensor> Projection::together(
    const at::Tensor& x, std::initializer_list<One> all) const {
  std::vector<at::Tensor> out;
  const bool packed = std::ranges::none_of(
      all, [](const One& one) { return one.weight.defined(); });
  if (!packed || context.tap != nullptr) {
    for (const auto& [role, weight, bias] : all) {
      out.push_back((*this)(role, x, weight, bias));
    }
    return out;
  }
  std::vector<const StoredMatrix*> matrices;
  for (const One& one : all) {
    matrices.push_back(&weights.packed->at(one.role));
  }
  out = packed_linears(matrices, x, context.activations);
  std::size_t i = 0;
  for (const One& one : all) {
    if (one.bias.defined()) out[i].add_(one.bias);
    ++i;
  }
  return out;
}

}  // namespace fettle::model
