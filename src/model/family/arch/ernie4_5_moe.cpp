// SPDX-License-Identifier: Apache-2.0
// ERNIE 4.5: GQA that rotates neighbouring pairs, and a softmax router whose
// choice a bias corrects, which is stored as a matrix of one row. Source:
// transformers 5.17, models/ernie4_5_moe and conversion_mapping.py.
#include "model/family/arch/families.h"
#include "model/family/arch/shared_rows.h"
#include "model/family/config_common.h"
#include "model/family/config_sparse.h"

namespace fettle::model {
namespace {

SparseKeys sparse_keys() {
  return {
      .experts =
          {{"moe_num_experts", "num_experts"},
           64,
           "moe_intermediate_size",
           1536,
           6,
           {"moe_k", "num_experts_per_tok"}},
      .shared = "moe_num_shared_experts",
      .default_shared = 2,
      .default_dense_width = 12288};
}

std::vector<bool> sparse_layers(const JsonObject& json, std::int64_t layers) {
  const std::int64_t first =
      read_integer(json, {{"moe_layer_start_index"}, 1, 0});
  std::int64_t last = read_integer(json, {{"moe_layer_end_index"}, -1, -1});
  if (last == -1) last = layers - 1;
  const std::int64_t step = read_integer(json, {{"moe_layer_interval"}, 1});
  std::vector<bool> sparse;
  for (std::int64_t l = 0; l < layers; ++l) {
    sparse.push_back((l + 1) % step == 0 && l >= first && l <= last);
  }
  return sparse;
}

ModelConfig parse(const JsonObject& json) {
  ModelConfig config = parse_common(
      json,
      {.vocab_size = 103424,
       .hidden_size = 2560,
       .layers = 28,
       .heads = 20,
       .kv_heads = 4,
       .max_position = 131072,
       .norm_eps = 1e-5,
       .eos_token_ids = {2},
       .tie_word_embeddings = true});
  parse_gqa(json, {.theta = 500000.0}, config);
  config.attention().rope.pairing = RopePairing::kInterleaved;
  // It would give every projection a bias, the experts' too.
  require_value(json, "use_bias", false);
  config.router.renormalize = true;
  config.router.correction_bias = true;
  config.router.least_sum = read_number(json, {"moe_norm_min", 1e-12});
  require_value(json, "sliding_window", nullptr);
  place_experts(
      json, sparse_keys(), sparse_layers(json, config.num_layers()), config);
  check_layer_types(json, config);
  return config;
}

constexpr WeightRow kOwnRows[] = {
    {Role::kRouter, "model.layers.{l}.mlp.gate.weight"},
    {.role = Role::kRouterCorrection,
     .name = "model.layers.{l}.mlp.moe_statics.e_score_correction_bias",
     .alias = "model.layers.{l}.mlp.gate.moe_statics.e_score_correction_bias",
     .as_row = true},
    own_row(Role::kRouterBias, "model.layers.{l}.mlp.gate.logit_bias"),
};

constexpr auto kWeights = joined(
    kFirstRows,
    kGroupedRows,
    kNormRows,
    kOwnRows,
    kExpertRows,
    kSharedExpertRows,
    kDenseRows,
    kLastRows);

}  // namespace

Family ernie4_5_moe_family() {
  return {
      "ernie4_5_moe",
      parse,
      write_sparse_by<sparse_keys>,
      kWeights,
      "moe_num_shared_experts"};
}

}  // namespace fettle::model
