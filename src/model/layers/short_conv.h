// SPDX-License-Identifier: Apache-2.0
// The gated short convolution of LFM2 (Liquid AI, 2025).
#pragma once

#include <ATen/ATen.h>

#include "model/layers/layer_context.h"
#include "model/weights/layer_weights.h"

namespace fettle::model {

// out(C · conv(B · u)) with B, C and u projected from x: [N, H] → [N, H].
at::Tensor short_conv(
    const LayerContext& context,
    const LayerWeights& weights,
    const at::Tensor& x);

}  // namespace fettle::model
