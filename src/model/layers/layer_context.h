// SPDX-License-Identifier: Apache-2.0
// What the parts of a layer's forward pass know beside their weights and input.
#pragma once

#include <cstdint>

#include "model/family/model_config.h"
#include "model/layers/layer_state.h"
#include "model/layers/layer_tap.h"
#include "model/layers/micro_batch.h"
#include "model/layers/router_training.h"

namespace fettle::model {

struct LayerContext {
  const ModelConfig& config;
  std::int64_t layer;
  const MicroBatch& batch;
  LayerTap* tap = nullptr;
  LayerState* state = nullptr;  // only with one sequence and no gradient
  const RouterTraining* router = nullptr;  // none: as in use

  const LayerConfig& shape() const { return config.layers[layer]; }
  const AttentionConfig& attention() const {
    return config.attention_of(shape());
  }
  const RotaryTables& rotary() const { return batch.rotary[shape().attention]; }
};

}  // namespace fettle::model
