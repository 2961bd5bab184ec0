// SPDX-License-Identifier: Apache-2.0
// An expert by itself, for layers whose experts are apart (mlp_weights.h).
#pragma once

#include <ATen/ATen.h>

#include <cstdint>
#include <functional>

#include "model/family/model_config.h"
#include "model/family/weight_table.h"
#include "model/weights/mlp_weights.h"

namespace fettle::model {

// Writes a matrix of the expert: it is given weight_view of it.
using FillMatrix =
    std::function<void(const WeightId& id, const at::Tensor& view)>;

// An expert of the type that `options` say, on the CPU. Each thread keeps the
// memory of its last one for the next, once nobody holds that one any more: the
// system would clear every page of it anew.
Mlp made_expert(
    const ModelConfig& config,
    std::int64_t layer,
    std::int64_t expert,
    at::TensorOptions options,
    const FillMatrix& fill);

}  // namespace fettle::model
