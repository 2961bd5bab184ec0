// SPDX-License-Identifier: Apache-2.0
// Between stored weights and the packed form of the forward pass.
#pragma once

#include <ATen/ATen.h>

#include "model/layer_weights.h"
#include "model/model_config.h"
#include "model/weight_table.h"

namespace fettle::model {

// down_proj of an expert, a shared or a dense MLP: packed transposed.
bool is_down_role(Role role);

// The type a weight has in a layer of `type`: the router's are always fp32.
at::ScalarType loaded_type(Role role, at::ScalarType type);

// A layer with all of its tensors, their values not set, on the CPU.
LayerWeights empty_layer(
    const ModelConfig& config, std::int64_t layer, at::ScalarType type);

// The part of `weights` that is weight `id`: a view in the stored shape (down
// projections are transposed views), so that writing to it changes `weights`.
at::Tensor weight_view(const LayerWeights& weights, const WeightId& id);

}  // namespace fettle::model
