// SPDX-License-Identifier: Apache-2.0
// The language model of Qwen3-VL-MoE: Qwen3-MoE's, whose experts are stacks, of
// columns in released models. Positions of text are the same in all sections of
// its rotary embedding. Source: transformers 5.17, models/qwen3_vl_moe and
// conversion_mapping.py.
#include "model/family/arch/families.h"
#include "model/family/arch/shared_rows.h"
#include "model/family/arch/stacked_rows.h"
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
       .max_position = 128000,
       .tie_word_embeddings = true});
  parse_gqa(json, {.theta = 500000.0}, config);
  config.attention().qkv_bias = json.boolean_or("attention_bias", false);
  config.attention().o_bias = config.attention().qkv_bias;
  config.attention().qk_norm = QkNorm::kHead;
  config.router.renormalize = true;
  place_experts_by_step(json, parse_experts(json, expert_keys()), 5632, config);
  check_layer_types(json, config);
  return config;
}

constexpr WeightRow kConstantRows[] = {
    own_row(Role::kExpertConstant, "model.layers.{l}.mlp.experts.constant"),
};

constexpr auto kWeights = joined(
    kFirstRows,
    kGroupedRows,
    kNormRows,
    kRouterRows,
    kStackedExpertRows<StackOrder::kGateFirst>,
    kConstantRows,
    kDenseRows,
    kLastRows);

}  // namespace

Family qwen3_vl_moe_family() {
  return {"qwen3_vl_moe_text", parse, write_experts_by<expert_keys>, kWeights};
}

}  // namespace fettle::model
