// SPDX-License-Identifier: Apache-2.0
// One decoder layer over a micro-batch: norm, attention, residual, norm,
// experts, residual.
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

// ids [N] → [N, H].
at::Tensor embed(const GlobalWeights& weights, const at::Tensor& ids);

}  // namespace fettle::model
