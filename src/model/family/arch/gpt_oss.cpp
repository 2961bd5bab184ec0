// SPDX-License-Identifier: Apache-2.0
// gpt-oss: GQA with biases and a sink a head, every other layer with a sliding
// window; experts with biases and a clamped SwiGLU, stacked on disk with gate
// and up in turns; a router with a bias, whose chosen logits are normalised.
// Source: transformers 5.17, models/gpt_oss.
#include "model/family/arch/families.h"
#include "model/family/arch/shared_rows.h"
#include "model/family/arch/stacked_rows.h"
#include "model/family/config_common.h"

namespace fettle::model {
namespace {

ExpertKeys expert_keys() {
  return {
      {"num_local_experts", "num_experts"},
      128,
      "intermediate_size",
      2880,
      4,
      {"num_experts_per_tok", "experts_per_token"}};
}

// The rotary options that a configuration without any has.
Json with_rope(const JsonObject& json) {
  Json result = json.json();
  if (json.has("rope_scaling") || json.has("rope_parameters")) return result;
  result["rope_parameters"] = {
      {"rope_type", "yarn"},
      {"factor", 32.0},
      {"truncate", false},
      {"original_max_position_embeddings", 4096}};
  return result;
}

void parse_attention(const JsonObject& json, ModelConfig& config) {
  const bool bias = json.boolean_or("attention_bias", true);
  config.attention().qkv_bias = bias;
  config.attention().o_bias = bias;
  config.attention().sinks = true;
  const Json filled = with_rope(json);
  parse_gqa(
      JsonObject(filled, "model", json.subject()),
      {.theta = 150000.0, .head_dim = 64},
      config);
  parse_windows(
      json,
      parse_window(json, 128),
      [](std::int64_t l) { return l % 2 == 0; },
      config);
}

ModelConfig parse(const JsonObject& json) {
  require_value(json, "hidden_act", "silu");
  require_value(json, "swiglu_limit", kernels::kSwigluLimit);
  ModelConfig config = parse_common(
      json,
      {.vocab_size = 201088,
       .hidden_size = 2880,
       .layers = 36,
       .heads = 64,
       .kv_heads = 8,
       .max_position = 131072,
       .norm_eps = 1e-5});
  config.activation = Activation::kClampedSwiglu;
  config.expert_bias = true;
  config.router.score = RouterScore::kTopkThenSoftmax;
  LayerConfig sparse = parse_experts(json, expert_keys());
  if (!sparse.sparse) {
    json.refuse("num_local_experts", "is 0; a gpt-oss layer has experts");
  }
  sparse.has_constants = true;
  sparse.router_bias = true;
  config.layers.assign(config.layers.size(), sparse);
  parse_attention(json, config);
  return config;
}

constexpr StackOrder kOrder = StackOrder::kInterleaved;
constexpr std::string_view kGateUpBias =
    "model.layers.{l}.mlp.experts.gate_up_proj_bias";

constexpr WeightRow kRowsBeforeExperts[] = {
    {Role::kSinks, "model.layers.{l}.self_attn.sinks"},
    {Role::kPostAttentionNorm,
     "model.layers.{l}.post_attention_layernorm.weight"},
    {Role::kRouter, "model.layers.{l}.mlp.router.weight"},
    {Role::kRouterBias, "model.layers.{l}.mlp.router.bias"},
};
constexpr WeightRow kBiasRows[] = {
    stacked_row(
        Role::kExpertGateBias,
        "model.layers.{l}.mlp.experts.{e}.gate_proj.bias",
        kGateUpBias,
        kOrder),
    stacked_row(
        Role::kExpertUpBias,
        "model.layers.{l}.mlp.experts.{e}.up_proj.bias",
        kGateUpBias,
        kOrder),
    {Role::kExpertConstant, "model.layers.{l}.mlp.experts.down_proj_bias"},
};

constexpr auto kWeights = joined(
    kFirstRows,
    kGroupedRows,
    kRowsBeforeExperts,
    kStackedExpertRows<kOrder>,
    kBiasRows,
    kLastRows);

}  // namespace

Family gpt_oss_family() {
  return {"gpt_oss", parse, write_experts_by<expert_keys>, kWeights};
}

}  // namespace fettle::model
