// SPDX-License-Identifier: Apache-2.0
// Causal self-attention, grouped-query and multi-head latent, over packed
// sequences.
#pragma once

#include <ATen/ATen.h>

#include "model/layers/layer_context.h"
#include "model/weights/layer_weights.h"

namespace fettle::model {

// x: [N, H], normed → [N, H]. Tokens attend to earlier tokens of their own
// sequence, at most a sliding window back. With states, the keys and values of
// each sequence's cache come first and the new ones are appended.
at::Tensor attention(
    const LayerContext& context,
    const LayerWeights& weights,
    const at::Tensor& x);

}  // namespace fettle::model
