// SPDX-License-Identifier: Apache-2.0
// Products of a token mixer with the projections of its layer.
#pragma once

#include <ATen/ATen.h>

#include <initializer_list>
#include <vector>

#include "model/layers/layer_context.h"
#include "model/weights/layer_weights.h"

namespace fettle::model {

// x Wᵀ + b with a weight of one of attention_roles(), packed or not. Shows the
// tap the input, and of the backward pass what it wants to see.
struct Projection {
  const LayerContext& context;
  const LayerWeights& weights;

  // x: [N, in], weight: [out, in], bias: [out] or undefined → [N, out].
  at::Tensor operator()(
      Role role,
      const at::Tensor& x,
      const at::Tensor& weight,
      const at::Tensor& bias = {}) const;

  struct One {
    Role role;
    const at::Tensor& weight;
    const at::Tensor& bias;
  };
  // The same of several weights that meet one x: where all are packed, their
  // products are computed together.
  std::vector<at::Tensor> together(
      const at::Tensor& x, std::initializer_list<One> all) const;
};

}  // namespace fettle::model
