// SPDX-License-Identifier: Apache-2.0
// MiniMax-M2: GQA with a norm over all heads' queries and keys at once, of
// which a part of each head rotates, and a sigmoid router whose choice a bias
// corrects. Experts have Mixtral's names. Source: transformers 5.17,
// models/minimax_m2 and conversion_mapping.py.
#include "model/family/arch/families.h"
#include "model/family/arch/shared_rows.h"
#include "model/family/config_common.h"

namespace fettle::model {
namespace {

ExpertKeys expert_keys() {
  return {
      {"num_local_experts", "num_experts"}, 256, "intermediate_size", 1536, 8};
}

// What the released configuration says of its own options: transformers reads
// none of them and computes as if they were so.
void check_options(const JsonObject& json) {
  require_value(json, "scoring_func", "sigmoid");
  require_value(json, "use_routing_bias", true);
  require_value(json, "use_qk_norm", true);
  require_value(json, "qk_norm_type", "per_layer");
  require_value(json, "shared_intermediate_size", 0);
  require_value(json, "sliding_window", nullptr);
  if (!json.has("attn_type_list")) return;
  for (const std::int64_t type : read_integers(json, "attn_type_list")) {
    if (type != 1) {
      json.refuse("attn_type_list", "names layers without full attention");
    }
  }
}

ModelConfig parse(const JsonObject& json) {
  check_options(json);
  ModelConfig config = parse_common(
      json,
      {.vocab_size = 200064,
       .hidden_size = 3072,
       .layers = 62,
       .heads = 48,
       .kv_heads = 8,
       .max_position = 196608,
       .eos_token_ids = {200020}});
  parse_gqa(
      json, {.theta = 5e6, .head_dim = 128, .partial_rotary = 1.0}, config);
  config.attention().qk_norm = QkNorm::kFull;
  config.router.score = RouterScore::kSigmoid;
  config.router.correction_bias = true;
  config.router.renormalize = true;
  const LayerConfig sparse = parse_experts(json, expert_keys());
  if (!sparse.sparse) {
    json.refuse("num_local_experts", "is 0; a MiniMax-M2 layer has experts");
  }
  config.layers.assign(config.layers.size(), sparse);
  check_layer_types(json, config);
  return config;
}

constexpr WeightRow kOwnRows[] = {
    {Role::kRouter,
     "model.layers.{l}.block_sparse_moe.gate.weight",
     {},
     "model.layers.{l}.mlp.gate.weight"},
    {Role::kRouterCorrection,
     "model.layers.{l}.block_sparse_moe.e_score_correction_bias",
     {},
     "model.layers.{l}.mlp.e_score_correction_bias"},
    own_row(
        Role::kRouterBias, "model.layers.{l}.block_sparse_moe.gate.logit_bias"),
};

constexpr auto kWeights = joined(
    kFirstRows, kGroupedRows, kNormRows, kOwnRows, kBlockSparseRows, kLastRows);

}  // namespace

Family minimax_m2_family() {
  return {"minimax_m2", parse, write_experts_by<expert_keys>, kWeights};
}

}  // namespace fettle::model
