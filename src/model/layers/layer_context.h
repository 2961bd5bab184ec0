// SPDX-License-Identifier: Apache-2.0
// What the parts of a layer's forward pass know beside their weights and input.
#pragma once

#include <cstdint>
#include <span>

#include "model/family/model_config.h"
#include "model/layers/layer_state.h"
#include "model/layers/layer_tap.h"
#include "model/layers/micro_batch.h"
#include "model/layers/router_training.h"

namespace fettle::model {

// What packed matrices are multiplied by: activations as they are, or rounded
// to int8 where there is an op for that (kernels/rounded_products.h).
enum class Activations : std::uint8_t { kFull, kInt8 };

struct LayerContext {
  const ModelConfig& config;
  std::int64_t layer;
  const MicroBatch& batch;
  LayerTap* tap = nullptr;
  // Of each sequence of the batch, which go on behind them; none: sequences
  // begin and end here. Only without gradient.
  std::span<LayerState* const> states = {};
  const RouterTraining* router = nullptr;        // none: as in use
  Activations activations = Activations::kFull;  // of packed products

  const LayerConfig& shape() const { return config.layers[layer]; }
  const AttentionConfig& attention() const {
    return config.attention_of(shape());
  }
  // Whether every sequence goes on by one token.
  bool decodes() const {
    return !states.empty() && batch.tokens.tokens() == batch.tokens.sequences();
  }
  const RotaryTables& rotary() const { return batch.rotary[shape().attention]; }
};

}  // namespace fettle::model
