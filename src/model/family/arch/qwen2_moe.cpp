// SPDX-License-Identifier: Apache-2.0
// Qwen2-MoE: GQA with biases, softmax routing, and a shared expert behind a
// sigmoid gate. Source: transformers 5.17, models/qwen2_moe.
#include "model/family/arch/families.h"
#include "model/family/arch/shared_rows.h"
#include "model/family/config_common.h"

namespace fettle::model {
namespace {

ExpertKeys expert_keys() {
  return {
      {"num_experts", "num_local_experts"},
      60,
      "moe_intermediate_size",
      1408,
      4};
}

ModelConfig parse(const JsonObject& json) {
  ModelConfig config = parse_common(
      json,
      {.vocab_size = 151936,
       .hidden_size = 2048,
       .layers = 24,
       .heads = 16,
       .kv_heads = 16,
       .max_position = 32768});
  parse_gqa(json, {10000.0}, config);
  config.attention().qkv_bias = json.boolean_or("qkv_bias", true);
  config.router.renormalize = json.boolean_or("norm_topk_prob", false);
  place_experts_by_step(json, parse_experts(json, expert_keys()), 5632, config);
  config.shared_expert = SharedExpert::kSigmoidGated;
  const std::int64_t shared =
      read_integer(json, {{"shared_expert_intermediate_size"}, 5632});
  for (LayerConfig& layer : config.layers) {
    if (layer.sparse) layer.shared_width = shared;
  }
  const bool windowed = json.boolean_or("use_sliding_window", false);
  parse_windows(
      json,
      windowed ? parse_window(json, 4096) : 0,
      [last = read_integer(json, {{"max_window_layers"}, 28, 0})](
          std::int64_t l) { return l % 2 == 0 && l < last; },
      config);
  return config;
}

constexpr auto kWeights = joined(
    kFirstRows,
    kGroupedRows,
    kNormRows,
    kRouterRows,
    kExpertRows,
    kGatedSharedRows,
    kDenseRows,
    kLastRows);

}  // namespace

Family qwen2_moe_family() {
  return {
      "qwen2_moe",
      parse,
      write_experts_by<expert_keys>,
      kWeights,
      "shared_expert_intermediate_size"};
}

}  // namespace fettle::model
