// SPDX-License-Identifier: Apache-2.0
// How many numbers a layer keeps of earlier tokens (layer_state.h), for plans.
#pragma once

#include <cstdint>

#include "model/family/model_config.h"

namespace fettle::model {

struct StateSize {
  std::int64_t per_token = 0;  // keys and values, or latents
  std::int64_t tail = 0;       // the last inputs of a convolution
  std::int64_t recurrent = 0;  // the state of a recurrence, in fp32
};

// Of one sequence.
StateSize state_size(const ModelConfig& config, const LayerConfig& layer);

}  // namespace fettle::model
