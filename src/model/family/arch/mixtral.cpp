// SPDX-License-Identifier: Apache-2.0
// Mixtral: GQA, softmax routing whose chosen weights sum to one. On disk the
// experts are w1 (gate), w3 (up) and w2 (down) under block_sparse_moe; the
// names that transformers 5 uses in memory are read as well. Source:
// transformers 5.17, models/mixtral and conversion_mapping.py.
#include "model/family/arch/families.h"
#include "model/family/arch/shared_rows.h"
#include "model/family/config_common.h"

namespace fettle::model {
namespace {

ExpertKeys expert_keys() {
  return {
      {"num_local_experts", "num_experts"}, 8, "intermediate_size", 14336, 2};
}

ModelConfig parse(const JsonObject& json) {
  ModelConfig config = parse_common(
      json,
      {.vocab_size = 32000,
       .hidden_size = 4096,
       .layers = 32,
       .heads = 32,
       .kv_heads = 8,
       .max_position = 131072,
       .norm_eps = 1e-5,
       .eos_token_ids = {2}});
  parse_gqa(json, {1e6}, config);
  config.router.renormalize = true;
  const LayerConfig sparse = parse_experts(json, expert_keys());
  if (!sparse.sparse) {
    json.refuse("num_local_experts", "is 0; a Mixtral layer has experts");
  }
  config.layers.assign(config.layers.size(), sparse);
  const std::int64_t window = parse_window(json, 0);
  for (LayerConfig& layer : config.layers) layer.sliding_window = window;
  check_layer_types(json, config);
  return config;
}

constexpr WeightRow kOwnRows[] = {
    {Role::kRouter,
     "model.layers.{l}.block_sparse_moe.gate.weight",
     {},
     "model.layers.{l}.mlp.gate.weight"},
    own_row(
        Role::kRouterBias, "model.layers.{l}.block_sparse_moe.gate.logit_bias"),
};

constexpr auto kWeights = joined(
    kFirstRows, kGroupedRows, kNormRows, kOwnRows, kBlockSparseRows, kLastRows);

}  // namespace

Family mixtral_family() {
  return {"mixtral", parse, write_experts_by<expert_keys>, kWeights};
}

}  // namespace fettle::model
