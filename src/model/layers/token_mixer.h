// SPDX-License-Identifier: Apache-2.0
// What mixes the tokens of a layer, whichever kind the layer has.
#pragma once

#include <ATen/ATen.h>

#include "model/layers/layer_context.h"
#include "model/weights/layer_weights.h"

namespace fettle::model {

// x: [N, H], normed → [N, H]. No token sees another sequence, or what comes
// after it. With a state, that is what came before; it is brought up to date.
at::Tensor token_mixer(
    const LayerContext& context,
    const LayerWeights& weights,
    const at::Tensor& x);

}  // namespace fettle::model
