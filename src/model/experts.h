// SPDX-License-Identifier: Apache-2.0
// The experts of a layer over a micro-batch: y_n = Σ_k w_nk E_{s_nk}(x_n), each
// expert's tokens gathered into one matrix. Differentiable in x, in the mixing
// weights, and in the bank's tensors where those require grad.
#pragma once

#include <ATen/ATen.h>

#include <cstdint>

#include "model/layer_weights.h"
#include "model/moe_tap.h"
#include "model/router.h"

namespace fettle::model {

struct ExpertPass {
  std::int64_t layer;
  const ExpertBank& bank;
  MoeTap* tap = nullptr;
};

// x: [N, H]; selected and weights of the routing: [N, K] → [N, H].
at::Tensor experts_forward(
    const ExpertPass& pass,
    const at::Tensor& x,
    const at::Tensor& selected,
    const at::Tensor& weights);

}  // namespace fettle::model
