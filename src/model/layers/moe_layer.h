// SPDX-License-Identifier: Apache-2.0
// The feed-forward half of a sparse layer: router, experts, shared expert.
#pragma once

#include <ATen/ATen.h>

#include "model/layers/layer_context.h"
#include "model/weights/layer_weights.h"

namespace fettle::model {

struct MoeInput {
  const at::Tensor& experts;  // [N, H], normed
  const at::Tensor& router;   // likewise; the same in most families
};

// → [N, H].
at::Tensor moe_layer(
    const LayerContext& context,
    const LayerWeights& weights,
    const MoeInput& input);

}  // namespace fettle::model
