// SPDX-License-Identifier: Apache-2.0
// Mellum: Qwen3-MoE's layers, some with a sliding window, and a rotary
// embedding for each of the two types. Source: transformers 5.17,
// models/mellum.
#include <algorithm>
#include <string_view>

#include "model/family/arch/families.h"
#include "model/family/arch/shared_rows.h"
#include "model/family/config_common.h"
#include "model/family/config_kinds.h"
#include "model/family/config_sparse.h"

namespace fettle::model {
namespace {

SparseKeys sparse_keys() {
  return {
      .experts =
          {{"num_experts", "num_local_experts"},
           64,
           "moe_intermediate_size",
           896,
           8},
      .shared = {},
      .default_shared = 0,
      .default_dense_width = 7168};
}

// Layers with a window have another rotary embedding than those without.
void parse_attention(const JsonObject& json, ModelConfig& config) {
  const auto windowed = [](const LayerConfig& layer) {
    return layer.sliding_window > 0;
  };
  const auto parse_as = [&](std::string_view type, double theta) {
    const Json flat = with_rope_of(json, type);
    parse_gqa(
        JsonObject(flat, "model", json.subject()),
        {.theta = theta, .head_dim = 128},
        config);
    return config.attention();
  };
  config.attention().qkv_bias = json.boolean_or("attention_bias", false);
  config.attention().o_bias = config.attention().qkv_bias;
  config.attention().qk_norm = QkNorm::kHead;
  AttentionConfig full, sliding;
  if (!std::ranges::all_of(config.layers, windowed)) {
    full = parse_as(kFullType, 500000.0);
  }
  if (std::ranges::any_of(config.layers, windowed)) {
    sliding = parse_as(kSlidingType, 10000.0);
  }
  set_attentions(full, sliding, config);
}

ModelConfig parse(const JsonObject& json) {
  ModelConfig config = parse_common(
      json,
      {.vocab_size = 98304,
       .hidden_size = 2304,
       .layers = 28,
       .heads = 32,
       .kv_heads = 4,
       .max_position = 131072});
  require_value(json, "rope_scaling", nullptr);
  config.router.renormalize = json.boolean_or("norm_topk_prob", true);
  place_experts(
      json,
      sparse_keys(),
      sparse_by_types(json, std::vector<bool>(config.layers.size(), true)),
      config);
  parse_windows(
      json,
      parse_window(json, 1024),
      [](std::int64_t) { return false; },
      config);
  parse_attention(json, config);
  return config;
}

}  // namespace

Family mellum_family() {
  return {"mellum", parse, write_sparse_by<sparse_keys>, kGroupedSparseRows};
}

}  // namespace fettle::model
