// SPDX-License-Identifier: Apache-2.0
// The feed-forward half of a sparse layer: router, experts, shared expert.
#pragma once

#include <ATen/ATen.h>

#include "model/layers/layer_context.h"
#include "model/weights/layer_weights.h"

namespace fettle::model {

// x: [N, H], normed → [N, H].
at::Tensor moe_layer(
    const LayerContext& context,
    const LayerWeights& weights,
    const at::Tensor& x);

}  // namespace fettle::model
