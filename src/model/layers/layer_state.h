// SPDX-License-Identifier: Apache-2.0
// What a layer keeps of a sequence's earlier tokens, for decoding.
#pragma once

#include <ATen/ATen.h>

#include <cstdint>

#include "model/family/model_config.h"
#include "model/layers/kv_cache.h"

namespace fettle::model {

// By the kind of the layer's mixer; what it has not stays empty, and so does
// all of it before the first token.
struct LayerState {
  KvCache cache;         // of attention
  at::Tensor tail;       // [1, W - 1, C], the last inputs of a convolution
  at::Tensor recurrent;  // [1, heads, ..] fp32, the state of a recurrence
};

// Bytes that all layers' states of `tokens` tokens take in `type`.
std::int64_t state_bytes(
    const ModelConfig& config, std::int64_t tokens, at::ScalarType type);

}  // namespace fettle::model
