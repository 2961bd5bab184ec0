// SPDX-License-Identifier: Apache-2.0
// Moves a layer to the device on a stream of its own, so that the copy runs
// behind the computation of the layer before it.
#pragma once

#include <ATen/ATen.h>

#include "model/layer_weights.h"

namespace fettle::model {

// The same weights on `device`. Returns when the copy is done; the calling
// thread waits, not the device's compute stream. On the CPU: as they are.
LayerWeights to_device(LayerWeights weights, at::Device device);
GlobalWeights to_device(GlobalWeights weights, at::Device device);

}  // namespace fettle::model
