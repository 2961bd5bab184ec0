// SPDX-License-Identifier: Apache-2.0
// DeepSeek-V2 and V2-Lite: multi-head latent attention, leading dense layers,
// plain shared experts (stored as one MLP), and softmax routing over all
// experts or within the best groups. Source: transformers 5.17,
// models/deepseek_v2.
#include <fmt/format.h>

#include <cmath>

#include "model/family/arch/families.h"
#include "model/family/config_common.h"
#include "model/family/config_rope.h"

namespace fettle::model {
namespace {

ExpertKeys expert_keys() {
  return {
      {"n_routed_experts", "num_experts", "num_local_experts"},
      64,
      "moe_intermediate_size",
      1407,
      {}};
}

// YaRN's correction of the softmax: transformers applies it under every kind
// of rotary scaling that has `mscale_all_dim`.
double softmax_scale(const AttentionConfig& attention, const RopeConfig& rope) {
  const double scale = 1.0 / std::sqrt(static_cast<double>(attention.head_dim));
  if (!rope.mscale_all_dim || rope.factor <= 1.0) return scale;
  const double mscale =
      0.1 * *rope.mscale_all_dim * std::log(rope.factor) + 1.0;
  return scale * mscale * mscale;
}

void parse_mla(const JsonObject& json, ModelConfig& config) {
  AttentionConfig& attention = config.attention;
  attention.kind = AttentionKind::kMla;
  if (attention.kv_heads != attention.heads) {
    json.refuse(
        "num_key_value_heads",
        fmt::format(
            "is {}; latent attention has as many as 'num_attention_heads', {}",
            attention.kv_heads,
            attention.heads));
  }
  attention.q_lora_rank =
      read_optional_integer(json, {{"q_lora_rank"}, 1536}).value_or(0);
  attention.kv_lora_rank = read_integer(json, {{"kv_lora_rank"}, 512});
  attention.qk_nope_head_dim = read_integer(json, {{"qk_nope_head_dim"}, 128});
  const std::int64_t rotated = read_integer(json, {{"qk_rope_head_dim"}, 64});
  if (rotated % 2 != 0) {
    json.refuse(
        "qk_rope_head_dim", fmt::format("is {}; it must be even", rotated));
  }
  attention.head_dim = attention.qk_nope_head_dim + rotated;
  attention.v_head_dim = read_integer(json, {{"v_head_dim"}, 128});
  attention.qkv_bias = json.boolean_or("attention_bias", false);
  attention.o_bias = attention.qkv_bias;
  config.latent_norm_eps = 1e-6;
  config.rope = parse_rope(json, {10000.0, rotated, config.max_position});
  config.rope.pairing = RopePairing::kInterleaved;
  attention.softmax_scale = softmax_scale(attention, config.rope);
}

void parse_router(const JsonObject& json, RouterConfig& router) {
  require_value(json, "scoring_func", "softmax");
  // With it the released code gives other outputs than transformers.
  require_value(json, "norm_topk_prob", false);
  router.scale = read_number(json, {"routed_scaling_factor", 1.0});
  const std::string method = json.string_or("topk_method", "greedy");
  if (method == "group_limited_greedy") {
    router.groups = read_integer(json, {{"n_group"}, {}});
    router.topk_groups =
        read_integer(json, {{"topk_group"}, {}, 1, router.groups});
  } else if (method != "greedy") {
    json.refuse(
        "topk_method",
        fmt::format(
            "is '{}'; Fettle knows greedy and group_limited_greedy", method));
  }
}

std::int64_t shared_experts(const JsonObject& json) {
  return read_optional_integer(json, {{"n_shared_experts"}, 2, 0, 4'096})
      .value_or(0);
}

ModelConfig parse(const JsonObject& json) {
  ModelConfig config = parse_common(
      json,
      {.vocab_size = 102400,
       .hidden_size = 4096,
       .layers = 32,
       .heads = 32,
       .kv_heads = {},
       .max_position = 2048,
       .eos_token_ids = {2}});
  parse_mla(json, config);
  parse_router(json, config.router);
  require_value(json, "moe_layer_freq", 1);
  require_value(json, "sliding_window", nullptr);
  const std::int64_t leading =
      read_integer(json, {{"first_k_dense_replace"}, 0, 0});
  const std::int64_t dense_width =
      read_integer(json, {{"intermediate_size"}, 11008});
  LayerConfig sparse = parse_experts(json, expert_keys());
  if (!sparse.sparse) {
    json.refuse("n_routed_experts", "is 0; a sparse layer has experts");
  }
  const std::int64_t shared = shared_experts(json);
  if (shared > 0) config.shared_expert = SharedExpert::kPlain;
  sparse.shared_width = shared * sparse.expert_widths.front();
  for (std::int64_t l = 0; l < config.num_layers(); ++l) {
    if (l >= leading) {
      config.layers[l] = sparse;
    } else {
      config.layers[l].dense_width = dense_width;
    }
  }
  check_layer_types(json, config);
  return config;
}

// The width is also the unit in which the shared expert's width is told, which
// must not change with it.
void write_uniform(
    Json& json, std::int64_t experts, std::int64_t width, std::int64_t top_k) {
  const JsonObject old(json, "model", "config.json");
  const std::int64_t shared_width =
      shared_experts(old) * parse_experts(old, expert_keys()).expert_widths[0];
  if (shared_width > 0 && width > 0 && shared_width % width == 0) {
    json["n_shared_experts"] = shared_width / width;
  }
  write_experts(json, expert_keys(), {experts, width, top_k});
}

constexpr WeightRow kWeights[] = {
    {Role::kEmbedTokens, "model.embed_tokens.weight"},
    {Role::kInputNorm, "model.layers.{l}.input_layernorm.weight"},
    {Role::kQProj, "model.layers.{l}.self_attn.q_proj.weight"},
    {Role::kQAProj, "model.layers.{l}.self_attn.q_a_proj.weight"},
    {Role::kQABias, "model.layers.{l}.self_attn.q_a_proj.bias"},
    {Role::kQANorm, "model.layers.{l}.self_attn.q_a_layernorm.weight"},
    {Role::kQBProj, "model.layers.{l}.self_attn.q_b_proj.weight"},
    {Role::kKvAProj, "model.layers.{l}.self_attn.kv_a_proj_with_mqa.weight"},
    {Role::kKvABias, "model.layers.{l}.self_attn.kv_a_proj_with_mqa.bias"},
    {Role::kKvANorm, "model.layers.{l}.self_attn.kv_a_layernorm.weight"},
    {Role::kKvBProj, "model.layers.{l}.self_attn.kv_b_proj.weight"},
    {Role::kOProj, "model.layers.{l}.self_attn.o_proj.weight"},
    {Role::kOBias, "model.layers.{l}.self_attn.o_proj.bias"},
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
    {Role::kSharedGate, "model.layers.{l}.mlp.shared_experts.gate_proj.weight"},
    {Role::kSharedUp, "model.layers.{l}.mlp.shared_experts.up_proj.weight"},
    {Role::kSharedDown, "model.layers.{l}.mlp.shared_experts.down_proj.weight"},
    {Role::kDenseGate, "model.layers.{l}.mlp.gate_proj.weight"},
    {Role::kDenseUp, "model.layers.{l}.mlp.up_proj.weight"},
    {Role::kDenseDown, "model.layers.{l}.mlp.down_proj.weight"},
    {Role::kFinalNorm, "model.norm.weight"},
    {Role::kLmHead, "lm_head.weight"},
};

}  // namespace

Family deepseek_v2_family() {
  return {"deepseek_v2", parse, write_uniform, kWeights};
}

}  // namespace fettle::model
