// SPDX-License-Identifier: Apache-2.0
// Which experts a token goes to, and how much each counts.
//
// A layer may have condensers: r of its experts that work on every token, each
// counted once (ExpertCondenser, arXiv 2604.23036). They are
// among the layer's K: the router chooses the other K - r, so that a token
// costs what it did, as the paper claims (its released code runs K + r, and a
// condenser that the router also chose twice). Mixing weights follow the
// family's own rule over all K.
#pragma once

#include <ATen/ATen.h>

#include <cstdint>
#include <vector>

#include "model/family/model_config.h"

namespace fettle::model {

struct Routing {
  at::Tensor logits;    // [N, E] fp32, bias included
  at::Tensor probs;     // [N, E] fp32, over all experts
  at::Tensor selected;  // [N, K] int64, condensers first, each expert once
  at::Tensor weights;   // [N, K] fp32
  at::Tensor scales;  // [E] fp32 that weights were multiplied by, or undefined
};

struct RouterTensors {
  const at::Tensor& weight;  // [E, H] fp32
  // [E] fp32 or undefined. The correction is added to the scores for the
  // choice only (DeepSeek-V3); the bias to the logits, and so changes the
  // mixing weights too.
  const at::Tensor& correction;
  const at::Tensor& bias;
  const std::vector<std::int64_t>& condensers;  // ascending, at most K
  at::Tensor noise = {};   // [N, E] fp32, added to the logits, or undefined
  at::Tensor scales = {};  // [E] fp32, multiply mixing weights, or undefined
  bool decodes = false;    // each row is a token that is decoded
};

// x: [N, H]. Differentiable in x and weight through the chosen experts'
// weights. A router of groups keeps the topk_groups best of them per token;
// groups are equally large runs of experts, and condensers count in them as
// experts outside the chosen groups do. A bias of
// zeros and no condensers give the same bits as without.
Routing route(
    const RouterConfig& config,
    std::int64_t top_k,
    const at::Tensor& x,
    const RouterTensors& router);

// What renormalised weights are divided by: [N, 1] for weights [N, K].
at::Tensor mixing_divisor(
    const RouterConfig& config, const at::Tensor& weights);

}  // namespace fettle::model
