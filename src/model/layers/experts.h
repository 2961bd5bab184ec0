// SPDX-License-Identifier: Apache-2.0
// The experts of a layer over a micro-batch: y_n = Σ_k w_nk E_{s_nk}(x_n), each
// expert's tokens gathered into one matrix. Differentiable in x, in the mixing
// weights, and in the bank's tensors where those require grad.
#pragma once

#include <ATen/ATen.h>

#include <cstdint>

#include "model/layers/layer_tap.h"
#include "model/weights/layer_weights.h"

namespace fettle::model {

struct ExpertPass {
  std::int64_t layer;
  const ExpertBank& bank;
  LayerTap* tap = nullptr;
  bool decodes = false;  // each row is a token that is decoded
};

struct Mixture {
  const at::Tensor& selected;  // [N, K]
  const at::Tensor& weights;   // [N, K]
  // [N, E] or undefined: weights of experts that were not chosen. They add
  // nothing, but have the gradient that they would have if they did, the
  // experts' outputs being constants.
  at::Tensor others = {};
};

// x: [N, H] → [N, H].
at::Tensor experts_forward(
    const ExpertPass& pass, const at::Tensor& x, const Mixture& mixture);

}  // namespace fettle::model
