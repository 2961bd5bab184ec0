// SPDX-License-Identifier: Apache-2.0
// What the parts of a layer's forward pass know beside their weights and input.
#pragma once

#include <cstdint>

#include "model/family/model_config.h"
#include "model/layers/kv_cache.h"
#include "model/layers/layer_tap.h"
#include "model/layers/packed_tokens.h"
#include "model/layers/rotary.h"
#include "model/layers/router_training.h"

namespace fettle::model {

struct LayerContext {
  const ModelConfig& config;
  std::int64_t layer;
  const PackedTokens& tokens;
  const RotaryTables& rotary;
  LayerTap* tap = nullptr;
  KvCache* cache = nullptr;  // only with one sequence and no gradient
  const RouterTraining* router = nullptr;  // none: as in use
  std::int64_t first_token = 0;            // of the micro-batch in its step
};

}  // namespace fettle::model
