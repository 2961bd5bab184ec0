// SPDX-License-Identifier: Apache-2.0
// Which experts a token goes to, and how much each counts.
#pragma once

#include <ATen/ATen.h>

#include "model/model_config.h"

namespace fettle::model {

struct Routing {
  at::Tensor logits;    // [N, E] fp32
  at::Tensor probs;     // [N, E] fp32, over all experts
  at::Tensor selected;  // [N, K] int64
  at::Tensor weights;   // [N, K] fp32
};

// x: [N, H]; weight: [E, H] fp32; correction: [E] fp32 or undefined, added to
// the scores for the choice only (DeepSeek-V3). Differentiable in x and weight
// through the chosen experts' weights. A router of groups keeps the topk_groups
// best of them per token; groups are equally large runs of experts.
Routing route(
    const RouterConfig& config,
    std::int64_t top_k,
    const at::Tensor& x,
    const at::Tensor& weight,
    const at::Tensor& correction);

}  // namespace fettle::model
