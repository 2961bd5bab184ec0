// SPDX-License-Identifier: Apache-2.0
// OLMoE: attention with a norm over all heads' queries and keys at once and
// optional clipping, softmax routing. Source: transformers 5.17, models/olmoe.
#include <fmt/format.h>

#include "model/family/arch/families.h"
#include "model/family/arch/shared_rows.h"
#include "model/family/config_common.h"

namespace fettle::model {
namespace {

ExpertKeys expert_keys() {
  return {
      {"num_experts", "num_local_experts"}, 64, "intermediate_size", 2048, 8};
}

ModelConfig parse(const JsonObject& json) {
  ModelConfig config = parse_common(
      json,
      {.vocab_size = 50304,
       .hidden_size = 2048,
       .layers = 16,
       .heads = 16,
       .kv_heads = {},
       .max_position = 4096,
       .norm_eps = 1e-5,
       .eos_token_ids = {50279}});
  parse_gqa(json, {10000.0}, config);
  AttentionConfig& attention = config.attention();
  if (attention.heads * attention.head_dim != config.hidden_size) {
    json.refuse(
        "head_dim",
        fmt::format(
            "is {}; OLMoE's query norm needs all {} heads together to be "
            "'hidden_size', {}, wide",
            attention.head_dim,
            attention.heads,
            config.hidden_size));
  }
  attention.qkv_bias = json.boolean_or("attention_bias", false);
  attention.o_bias = attention.qkv_bias;
  attention.qk_norm = QkNorm::kFull;
  if (json.has("clip_qkv")) {
    attention.clip_qkv = read_number(json, {"clip_qkv", {}});
  }
  // transformers' kinds of attention differ on what this would mean here.
  require_value(json, "sliding_window", nullptr);
  config.router.renormalize = json.boolean_or("norm_topk_prob", false);
  const LayerConfig sparse = parse_experts(json, expert_keys());
  if (!sparse.sparse) {
    json.refuse("num_experts", "is 0; an OLMoE layer has experts");
  }
  config.layers.assign(config.layers.size(), sparse);
  check_layer_types(json, config);
  return config;
}

constexpr auto kWeights = joined(
    kFirstRows, kGroupedRows, kNormRows, kRouterRows, kExpertRows, kLastRows);

}  // namespace

Family olmoe_family() {
  return {"olmoe", parse, write_experts_by<expert_keys>, kWeights};
}

}  // namespace fettle::model
