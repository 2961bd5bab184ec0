// SPDX-License-Identifier: Apache-2.0
// The causal convolution of a mixer, for sweeps and for decoding.
#pragma once

#include <ATen/ATen.h>

#include "model/layers/layer_context.h"
#include "model/weights/layer_weights.h"

namespace fettle::model {

struct ConvolutionKind {
  bool silu = false;  // behind it
};

// x: [N, C] → [N, C] by the layer's convolution. With a state, continues behind
// its tail.
at::Tensor convolution(
    const LayerContext& context,
    const LayerWeights& weights,
    const at::Tensor& x,
    const ConvolutionKind& kind);

}  // namespace fettle::model
