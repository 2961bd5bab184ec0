// SPDX-License-Identifier: Apache-2.0
// A layer as it was written, for the tokens to pass through.
#pragma once

#include <ATen/ATen.h>

#include <cstdint>

#include "model/weights/layer_weights.h"
#include "model/weights/model_reader.h"
#include "model/weights/packed_layer.h"

namespace fettle::quant {

// `read`, of the type `type`, with the values of what is packed. Shares nothing
// that changes; experts that are apart are apart in it, made of `packed` and of
// what `reader` has. That must outlive it.
model::LayerWeights as_written(
    const model::ModelReader& reader,
    std::int64_t layer,
    const model::LayerWeights& read,
    model::PackedLayer packed,
    at::ScalarType type);

}  // namespace fettle::quant
