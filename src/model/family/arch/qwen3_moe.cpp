// SPDX-License-Identifier: Apache-2.0
// Qwen3-MoE: GQA with a norm on each query and key head, softmax routing.
// Source: transformers 5.17, models/qwen3_moe.
#include "model/family/arch/families.h"
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

void write_uniform(
    Json& json, std::int64_t experts, std::int64_t width, std::int64_t top_k) {
  write_experts(json, expert_keys(), {experts, width, top_k});
}

constexpr WeightRow kWeights[] = {
    {Role::kEmbedTokens, "model.embed_tokens.weight"},
    {Role::kInputNorm, "model.layers.{l}.input_layernorm.weight"},
    {Role::kQProj, "model.layers.{l}.self_attn.q_proj.weight"},
    {Role::kQBias, "model.layers.{l}.self_attn.q_proj.bias"},
    {Role::kKProj, "model.layers.{l}.self_attn.k_proj.weight"},
    {Role::kKBias, "model.layers.{l}.self_attn.k_proj.bias"},
    {Role::kVProj, "model.layers.{l}.self_attn.v_proj.weight"},
    {Role::kVBias, "model.layers.{l}.self_attn.v_proj.bias"},
    {Role::kOProj, "model.layers.{l}.self_attn.o_proj.weight"},
    {Role::kOBias, "model.layers.{l}.self_attn.o_proj.bias"},
    {Role::kQNorm, "model.layers.{l}.self_attn.q_norm.weight"},
    {Role::kKNorm, "model.layers.{l}.self_attn.k_norm.weight"},
    {Role::kPostAttentionNorm,
     "model.layers.{l}.post_attention_layernorm.weight"},
    {Role::kRouter, "model.layers.{l}.mlp.gate.weight"},
    {Role::kRouterBias, "model.layers.{l}.mlp.gate.logit_bias"},
    {Role::kExpertGate,
     "model.layers.{l}.mlp.experts.{e}.gate_proj.weight",
     "model.layers.{l}.mlp.experts.gate_up_proj"},
    {Role::kExpertUp,
     "model.layers.{l}.mlp.experts.{e}.up_proj.weight",
     "model.layers.{l}.mlp.experts.gate_up_proj"},
    {Role::kExpertDown,
     "model.layers.{l}.mlp.experts.{e}.down_proj.weight",
     "model.layers.{l}.mlp.experts.down_proj"},
    {Role::kExpertConstant, "model.layers.{l}.mlp.experts.constant"},
    {Role::kDenseGate, "model.layers.{l}.mlp.gate_proj.weight"},
    {Role::kDenseUp, "model.layers.{l}.mlp.up_proj.weight"},
    {Role::kDenseDown, "model.layers.{l}.mlp.down_proj.weight"},
    {Role::kFinalNorm, "model.norm.weight"},
    {Role::kLmHead, "lm_head.weight"},
};

}  // namespace

Family qwen3_moe_family() {
  return {"qwen3_moe", parse, write_uniform, kWeights};
}

}  // namespace fettle::model
