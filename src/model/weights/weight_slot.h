// SPDX-License-Identifier: Apache-2.0
// Where a layer holds the weights of a role.
#pragma once

#include <ATen/ATen.h>

#include <span>

#include "model/family/weight_roles.h"
#include "model/weights/layer_weights.h"

namespace fettle::model {

// The tensor of a layer that weights of `role` lie in, a role of layers; it may
// be undefined. Gate and up of an MLP share one, as their biases do, and so do
// all experts: a view of one weight is weight_view's.
at::Tensor& weight_slot(LayerWeights& weights, Role role);
const at::Tensor& weight_slot(const LayerWeights& weights, Role role);

// A tensor of a layer, by the first role whose weights lie in it.
struct WeightSlot {
  Role role;
  at::Tensor& (*tensor)(LayerWeights& weights);
};

// All tensors of a layer, each once.
std::span<const WeightSlot> weight_slots();

}  // namespace fettle::model
