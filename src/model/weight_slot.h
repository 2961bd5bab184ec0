// SPDX-License-Identifier: Apache-2.0
// Where a layer holds the weights of a role.
#pragma once

#include <ATen/ATen.h>

#include "model/layer_weights.h"
#include "model/weight_table.h"

namespace fettle::model {

// The tensor of a layer that weights of `role` lie in, a role of layers; it may
// be undefined. Gate and up of an MLP share one, and so do all experts: the
// weight alone is weight_view's.
at::Tensor& weight_slot(LayerWeights& weights, Role role);
const at::Tensor& weight_slot(const LayerWeights& weights, Role role);

}  // namespace fettle::model
