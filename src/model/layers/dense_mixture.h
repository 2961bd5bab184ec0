// SPDX-License-Identifier: Apache-2.0
// What a router could learn from experts that it did not choose.
// Source: DenseMixer (Yao et al., 2025): the forward pass mixes the chosen
// experts, the router's gradient is that of the mixture of all.
#pragma once

#include <ATen/ATen.h>

#include "model/weights/layer_weights.h"

namespace fettle::model {

// <dy_n, E_e(x_n)> for every token n and expert e: [N, E] fp32. x: [N, H], dy:
// [N, H] the gradient of the layer's mixture. Costs two thirds of the forward
// and backward passes of all experts over all tokens.
at::Tensor output_products(
    const ExpertBank& bank, const at::Tensor& x, const at::Tensor& dy);

}  // namespace fettle::model
