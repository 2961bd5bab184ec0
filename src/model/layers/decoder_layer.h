// SPDX-License-Identifier: Apache-2.0
// One decoder layer over a micro-batch: norm, token mixer, residual, norm, MLP
// or experts, residual; where a family has them, norms of what is added too, a
// dense MLP beside the experts, and factors (block_config.h). A layer may lack
// its mixer or its MLP.
#pragma once

#include <ATen/ATen.h>

#include "model/layers/layer_context.h"
#include "model/weights/layer_weights.h"

namespace fettle::model {

// x: [N, H] → [N, H]. With autograd recording, the result is differentiable in
// x and in every weight that requires grad.
at::Tensor decoder_layer(
    const LayerContext& context,
    const LayerWeights& weights,
    const at::Tensor& x);

}  // namespace fettle::model
