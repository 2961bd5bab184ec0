// SPDX-License-Identifier: Apache-2.0
// A layer as the forward pass takes it, cut to a plan.
#pragma once

#include <ATen/ATen.h>

#include <vector>

#include "artifact/trim_plan.h"
#include "model/weights/layer_weights.h"

namespace fettle::trim {

// The layer with the plan's experts and neurons alone; what is not cut is
// shared with `whole`.
model::LayerWeights cut_layer(
    const model::LayerWeights& whole, const artifact::LayerPlan& plan);

// The plan that keeps every neuron of the experts that `plan` keeps.
artifact::LayerPlan whole_experts(
    const artifact::LayerPlan& plan, const std::vector<std::int64_t>& widths);

// Whether an expert that stays loses neurons.
bool cuts_neurons(
    const artifact::LayerPlan& plan, const std::vector<std::int64_t>& widths);

}  // namespace fettle::trim
