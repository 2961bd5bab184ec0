// SPDX-License-Identifier: Apache-2.0
// LFM2-MoE: gated short convolutions with some layers of GQA between them, and
// sigmoid routing whose choice a bias corrects. Source: transformers 5.17,
// models/lfm2_moe.
#include <array>

#include "model/family/arch/families.h"
#include "model/family/arch/shared_rows.h"
#include "model/family/config_common.h"
#include "model/family/config_mixers.h"

namespace fettle::model {
namespace {

ExpertKeys expert_keys() {
  return {{"num_experts"}, 32, "moe_intermediate_size", 1792, 4};
}

constexpr std::array<MixerName, 2> kMixers = {
    {{"conv", MixerKind::kShortConv},
     {"full_attention", MixerKind::kAttention}}};

// The first layers are dense.
void place_layers(const JsonObject& json, ModelConfig& config) {
  const std::int64_t dense = read_integer(json, {{"num_dense_layers"}, 2, 0});
  const std::int64_t width = read_integer(json, {{"intermediate_size"}, 7168});
  const LayerConfig sparse = parse_experts(json, expert_keys());
  if (!sparse.sparse)
    json.refuse("num_experts", "is 0; sparse layers have some");
  for (std::int64_t l = 0; l < config.num_layers(); ++l) {
    if (l < dense) {
      config.layers[l].dense_width = width;
    } else {
      config.layers[l] = sparse;
    }
  }
  parse_mixers(json, kMixers, config);
}

void parse_router(const JsonObject& json, RouterConfig& router) {
  router.score = RouterScore::kSigmoid;
  router.correction_bias = json.boolean_or("use_expert_bias", true);
  router.renormalize = json.boolean_or("norm_topk_prob", true);
  router.added_sum = 1e-6;
  router.scale = read_number(json, {"routed_scaling_factor", 1.0});
}

ModelConfig parse(const JsonObject& json) {
  ModelConfig config = parse_common(
      json,
      {.vocab_size = 65536,
       .hidden_size = 2048,
       .layers = 32,
       .heads = 32,
       .kv_heads = 8,
       .max_position = 128000,
       .eos_token_ids = {2},
       .tie_word_embeddings = true});
  config.norm_eps = read_number(json, {"norm_eps", 1e-5});
  config.tie_word_embeddings =
      json.boolean_or("tie_embedding", config.tie_word_embeddings);
  parse_gqa(json, {.theta = 1000000.0}, config);
  config.attention().qk_norm = QkNorm::kHead;
  config.short_conv = {
      parse_conv_width(json, {"conv_L_cache", 3}),
      json.boolean_or("conv_bias", false)};
  require_value(json, "hidden_act", "silu");
  parse_router(json, config.router);
  place_layers(json, config);
  return config;
}

constexpr WeightRow kWeights[] = {
    {Role::kEmbedTokens, "model.embed_tokens.weight"},
    {Role::kInputNorm, "model.layers.{l}.operator_norm.weight"},
    {Role::kQProj, "model.layers.{l}.self_attn.q_proj.weight"},
    {Role::kKProj, "model.layers.{l}.self_attn.k_proj.weight"},
    {Role::kVProj, "model.layers.{l}.self_attn.v_proj.weight"},
    {Role::kOProj, "model.layers.{l}.self_attn.out_proj.weight"},
    {Role::kQNorm, "model.layers.{l}.self_attn.q_layernorm.weight"},
    {Role::kKNorm, "model.layers.{l}.self_attn.k_layernorm.weight"},
    {Role::kShortConvIn, "model.layers.{l}.conv.in_proj.weight"},
    {Role::kShortConvInBias, "model.layers.{l}.conv.in_proj.bias"},
    {.role = Role::kConvWeight,
     .name = "model.layers.{l}.conv.conv.weight",
     .by_channel = true},
    {Role::kConvBias, "model.layers.{l}.conv.conv.bias"},
    {Role::kShortConvOut, "model.layers.{l}.conv.out_proj.weight"},
    {Role::kShortConvOutBias, "model.layers.{l}.conv.out_proj.bias"},
    {Role::kPostAttentionNorm, "model.layers.{l}.ffn_norm.weight"},
    {Role::kRouter, "model.layers.{l}.feed_forward.gate.weight"},
    {Role::kRouterCorrection, "model.layers.{l}.feed_forward.expert_bias"},
    own_row(Role::kRouterBias, "model.layers.{l}.feed_forward.gate.logit_bias"),
    {Role::kExpertGate,
     "model.layers.{l}.feed_forward.experts.{e}.w1.weight",
     "model.layers.{l}.feed_forward.experts.gate_up_proj"},
    {Role::kExpertUp,
     "model.layers.{l}.feed_forward.experts.{e}.w3.weight",
     "model.layers.{l}.feed_forward.experts.gate_up_proj"},
    {Role::kExpertDown,
     "model.layers.{l}.feed_forward.experts.{e}.w2.weight",
     "model.layers.{l}.feed_forward.experts.down_proj"},
    own_row(
        Role::kExpertConstant,
        "model.layers.{l}.feed_forward.experts.constant"),
    {Role::kDenseGate, "model.layers.{l}.feed_forward.w1.weight"},
    {Role::kDenseUp, "model.layers.{l}.feed_forward.w3.weight"},
    {Role::kDenseDown, "model.layers.{l}.feed_forward.w2.weight"},
    {Role::kFinalNorm, "model.embedding_norm.weight"},
    {Role::kLmHead, "lm_head.weight"},
};

}  // namespace

Family lfm2_moe_family() {
  return {"lfm2_moe", parse, write_experts_by<expert_keys>, kWeights};
}

}  // namespace fettle::model
