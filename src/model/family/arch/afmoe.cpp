// SPDX-License-Identifier: Apache-2.0
// AFMoE (Trinity): gated attention whose full layers know no positions, norms
// around both branches, and sigmoid routing whose choice a bias corrects.
// Source: transformers 5.17, models/afmoe.
#include <cmath>

#include "model/family/arch/families.h"
#include "model/family/arch/shared_rows.h"
#include "model/family/config_common.h"
#include "model/family/config_kinds.h"
#include "model/family/config_sparse.h"

namespace fettle::model {
namespace {

SparseKeys sparse_keys() {
  return {
      .experts = {{"num_experts"}, 64, "moe_intermediate_size", 1408, 6},
      .shared = "num_shared_experts",
      .default_shared = 2,
      .default_dense_width = 6144};
}

void parse_attention(const JsonObject& json, ModelConfig& config) {
  parse_gqa(json, {.head_dim = 128}, config);
  AttentionConfig sliding = config.attention();
  sliding.qkv_bias = json.boolean_or("attention_bias", false);
  sliding.o_bias = sliding.qkv_bias;
  sliding.qk_norm = QkNorm::kHead;
  sliding.gate = OutputGate::kOwnProjection;
  AttentionConfig full = sliding;
  full.rope = {};
  full.rope.max_position = config.max_position;
  set_attentions(full, sliding, config);
}

void parse_router(const JsonObject& json, RouterConfig& router) {
  // Keys of the code that came with the weights.
  require_value(json, "score_func", "sigmoid");
  require_value(json, "route_norm", true);
  router.score = RouterScore::kSigmoid;
  router.correction_bias = true;
  router.renormalize = true;
  router.added_sum = 1e-20;
  router.scale = read_number(json, {"route_scale", 1.0});
}

ModelConfig parse(const JsonObject& json) {
  ModelConfig config = parse_common(
      json,
      {.vocab_size = 200192,
       .hidden_size = 2048,
       .layers = 32,
       .heads = 16,
       .max_position = 16384,
       .norm_eps = 1e-5});
  const std::int64_t dense =
      read_optional_integer(json, {{"num_dense_layers"}, 1, 0}).value_or(0);
  std::vector<bool> sparse;
  for (std::int64_t l = 0; l < config.num_layers(); ++l) {
    sparse.push_back(l >= dense);
  }
  place_experts(json, sparse_keys(), sparse, config);
  const std::int64_t step =
      read_integer(json, {{"global_attn_every_n_layers"}, 4});
  parse_windows(
      json,
      read_integer(json, {{"sliding_window"}, 1024}),
      [&](std::int64_t l) { return (l + 1) % step != 0; },
      config);
  parse_attention(json, config);
  parse_router(json, config.router);
  config.block.out_norms = true;
  if (json.boolean_or("mup_enabled", false)) {
    config.ends.embedding_multiplier =
        std::sqrt(static_cast<double>(config.hidden_size));
  }
  return config;
}

constexpr WeightRow kOwnRows[] = {
    {Role::kAttentionGate, "model.layers.{l}.self_attn.gate_proj.weight"},
    {Role::kAttentionOutNorm,
     "model.layers.{l}.post_attention_layernorm.weight"},
    {Role::kPostAttentionNorm, "model.layers.{l}.pre_mlp_layernorm.weight"},
    {Role::kMlpOutNorm, "model.layers.{l}.post_mlp_layernorm.weight"},
    {Role::kRouter, "model.layers.{l}.mlp.router.gate.weight"},
    {Role::kRouterCorrection, "model.layers.{l}.mlp.expert_bias"},
    own_row(Role::kRouterBias, "model.layers.{l}.mlp.router.logit_bias"),
};

constexpr auto kWeights = joined(
    kFirstRows,
    kGroupedRows,
    kOwnRows,
    kExpertRows,
    kSharedExpertRows,
    kDenseRows,
    kLastRows);

}  // namespace

Family afmoe_family() {
  return {
      "afmoe",
      parse,
      write_sparse_by<sparse_keys>,
      kWeights,
      "num_shared_experts"};
}

}  // namespace fettle::model
