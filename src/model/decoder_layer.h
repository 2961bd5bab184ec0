// SPDX-License-Identifier: Apache-2.0
// One decoder layer over a micro-batch: norm, attention, residual, norm,
// experts, residual.
#pragma once

#include <ATen/ATen.h>

#include <memory>
#include <vector>

#include "model/layer_weights.h"
#include "model/model_config.h"
#include "model/moe_tap.h"
#include "model/packed_tokens.h"
#include "model/router_training.h"

namespace fettle::model {

// Rotary tables of a micro-batch, made once and shared by all layers.
struct RotaryTables {
  at::Tensor cos;  // [N, R/2] fp32, scaled by the attention factor
  at::Tensor sin;  // [N, R/2] fp32
};

// Tables for `positions` [N] of sequences at most `longest` tokens long (some
// scalings depend on it). Source: transformers, modeling_rope_utils.py.
RotaryTables rotary_tables(
    const RopeConfig& rope, const at::Tensor& positions, std::int64_t longest);

// Tables for a whole micro-batch, each sequence by its own length, so that they
// don't depend on what it is batched with.
RotaryTables rotary_tables(const RopeConfig& rope, const PackedTokens& tokens);

// Keys and values of earlier tokens, for decoding one sequence.
struct KvCache {
  at::Tensor key;           // [capacity, kv_heads, D]; under MLA expanded, so
                            // that kv_heads = heads
  at::Tensor value;         // [capacity, kv_heads, Dv]
  std::int64_t length = 0;  // tokens held

  // Adds n tokens' keys [n, kv_heads, D] and values [n, kv_heads, Dv].
  void append(const at::Tensor& new_key, const at::Tensor& new_value);
};

struct LayerContext {
  const ModelConfig& config;
  std::int64_t layer;
  const PackedTokens& tokens;
  const RotaryTables& rotary;
  MoeTap* tap = nullptr;
  KvCache* cache = nullptr;  // only with one sequence and no gradient
  const RouterTraining* router = nullptr;  // none: as in use
  std::int64_t first_token = 0;            // of the micro-batch in its step
};

// x: [N, H] → [N, H]. With autograd recording, the result is differentiable in
// x and in every weight that requires grad.
at::Tensor decoder_layer(
    const LayerContext& context,
    const LayerWeights& weights,
    const at::Tensor& x);

// ids [N] → [N, H].
at::Tensor embed(const GlobalWeights& weights, const at::Tensor& ids);

}  // namespace fettle::model
