// SPDX-License-Identifier: Apache-2.0
// The MLP that every token passes: of a dense layer, or a shared expert.
#pragma once

#include <ATen/ATen.h>

#include "model/family/weight_table.h"
#include "model/layers/layer_context.h"
#include "model/weights/layer_weights.h"

namespace fettle::model {

// down(act(gate x) * up x) of the layer's MLP of these roles. x: [N, H] → [N,
// H].
at::Tensor dense_mlp(
    const LayerContext& context,
    const LayerWeights& weights,
    const MlpRoles& roles,
    const at::Tensor& x);

}  // namespace fettle::model
