// SPDX-License-Identifier: Apache-2.0
// Between stored weights and the packed form of the forward pass.
#pragma once

#include <ATen/ATen.h>

#include <functional>

#include "model/family/model_config.h"
#include "model/family/weight_table.h"
#include "model/weights/layer_weights.h"

namespace fettle::model {

// The type a weight has in a layer of `type`: the router's are always fp32.
at::ScalarType loaded_type(Role role, at::ScalarType type);

// A layer whose tensors are those of `wanted` roles, of the type and memory
// that `options` say, their values not set. Where one role of an MLP is wanted,
// all three are, and so are the biases of gate and up.
using WantedRoles = std::function<bool(Role)>;
LayerWeights empty_layer(
    const ModelConfig& config,
    std::int64_t layer,
    at::TensorOptions options,
    const WantedRoles& wanted);

// Adds the tensors of `wanted` roles to a layer, likewise.
void add_empty(
    LayerWeights& weights,
    const ModelConfig& config,
    std::int64_t layer,
    at::TensorOptions options,
    const WantedRoles& wanted);

// The part of `weights` that is weight `id`: a view in the stored shape (down
// projections lie transposed), so that writing to it changes `weights`.
at::Tensor weight_view(const LayerWeights& weights, const WeightId& id);

// The same of what stands outside the layers.
at::Tensor weight_view(const GlobalWeights& weights, const WeightId& id);

}  // namespace fettle::model
