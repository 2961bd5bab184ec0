// SPDX-License-Identifier: Apache-2.0
// Qwen3-MoE: GQA with a norm on each query and key head, softmax routing.
// Source: transformers 5.17, models/qwen3_moe.
#include "model/family/arch/families.h"
#include "model/family/arch/shared_rows.h"
#include "model/family/config_common.h"

namespace fettle::model {
namespace {

ExpertKeys expert_keys() {
  return {
      {"num_experts", "num_local_experts"},
      128,
      "moe_intermediate_size",
      768,
      8};
}

ModelConfig parse(const JsonObject& json) {
  ModelConfig config = parse_common(
      json,
      {.vocab_size = 151936,
       .hidden_size = 2048,
       .layers = 24,
       .heads = 32,
       .kv_heads = 4,
       .max_position = 32768});
  parse_gqa(json, {10000.0}, config);
  config.attention().qkv_bias = json.boolean_or("attention_bias", false);
  config.attention().o_bias = config.attention().qkv_bias;
  config.attention().qk_norm = QkNorm::kHead;
  config.router.renormalize = json.boolean_or("norm_topk_prob", false);
  place_experts_by_step(json, parse_experts(json, expert_keys()), 6144, config);
  if (json.boolean_or("use_sliding_window", false)) {
    const std::int64_t window = parse_window(json, 4096);
    for (LayerConfig& layer : config.layers) layer.sliding_window = window;
  }
  check_layer_types(json, config);
  return config;
}

constexpr auto kWeights = joined(
    kFirstRows,
    kGroupedRows,
    kNormRows,
    kRouterRows,
    kExpertRows,
    kDenseRows,
    kLastRows);

}  // namespace

Family qwen3_moe_family() {
  return {"qwen3_moe", parse, write_experts_by<expert_keys>, kWeights};
}

}  // namespace fettle::model
