// SPDX-License-Identifier: Apache-2.0
#include "model/layers/dense_mlp.h"

#include "model/layers/decoded_product.h"
#include "model/layers/differentiable.h"
#include "model/layers/packed_products.h"

namespace fettle::model {

at::Tensor dense_mlp(
    const LayerContext& context,
    const LayerWeights& weights,
    const MlpRoles& roles,
    const at::Tensor& x) {
  const Mlp& mlp =
      roles.gate == kSharedRoles.gate ? weights.shared : weights.dense;
  if (!mlp.defined())
    return packed_mlp(
        *weights.packed, roles, x, {mlp.activation, context.activations});
  const ProductKind kind{context.decodes()};
  const at::Tensor h = gated(product(x, mlp.gate_up.t(), kind), mlp.activation);
  if (context.tap != nullptr) {
    context.tap->on_projection(context.layer, roles.gate, x);
    context.tap->on_projection(context.layer, roles.down, h);
  }
  return product(h, mlp.down, kind);
}

}  // namespace fettle::model
