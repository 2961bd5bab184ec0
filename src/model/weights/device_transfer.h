// SPDX-License-Identifier: Apache-2.0
// Moves layers to the device on a stream of their own, so that a copy runs
// behind the computation of the layer before it.
#pragma once

#include <ATen/ATen.h>

#include "model/weights/layer_weights.h"

namespace fettle::model {

// Where layers on their way to `device` are read to: for a card, memory that it
// can read by itself.
at::TensorOptions host_options(at::ScalarType type, at::Device device);

// The same weights on `device`, for work on its default stream. Returns when
// the copy is done; the calling thread waits, not that stream. On the CPU: as
// they are.
LayerWeights to_device(LayerWeights weights, at::Device device);

}  // namespace fettle::model
