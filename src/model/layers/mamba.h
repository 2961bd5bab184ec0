// SPDX-License-Identifier: Apache-2.0
// Mamba-2 (Dao and Gu 2024, arXiv:2405.21060) as Granite 4 and Nemotron-H have
// it.
#pragma once

#include <ATen/ATen.h>

#include "model/layers/layer_context.h"
#include "model/weights/layer_weights.h"

namespace fettle::model {

// x: [N, H] → [N, H]: a convolution over inputs, B and C, the selective scan, a
// gated norm of groups, and the output projection.
at::Tensor mamba(
    const LayerContext& context,
    const LayerWeights& weights,
    const at::Tensor& x);

}  // namespace fettle::model
