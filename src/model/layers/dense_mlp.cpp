// SPDX-License-Identifier: Apache-2.0
#include "model/layers/dense_mlp.h"

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
    return packed_mlp(*weights.packed, roles, x, mlp.activation);
  const at::Tensor h = gated(at::mm(x, mlp.gate_up.t()), mlp.activation);
  if (context.tap != nullptr) {
    context.tap->on_projection(context.layer, roles.gate, x);
    context.tap->on_projection(context.layer, roles.down, h);
  }
  return at::mm(h, mlp.down);
}

}  // namespace fettle::model
