// SPDX-License-Identifier: Apache-2.0
// Gated DeltaNet (Yang et al. 2024, arXiv:2412.06464) as Qwen3-Next has it.
#pragma once

#include <ATen/ATen.h>

#include "model/layers/layer_context.h"
#include "model/weights/layer_weights.h"

namespace fettle::model {

// x: [N, H] → [N, H]: a convolution over queries, keys and values, the gated
// delta rule, a norm of each head, gated, and the output projection.
at::Tensor gated_delta(
    const LayerContext& context,
    const LayerWeights& weights,
    const at::Tensor& x);

}  // namespace fettle::model
