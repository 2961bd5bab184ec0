// SPDX-License-Identifier: Apache-2.0
// The language model of Qwen3.5 and 3.6: as Qwen3-Next, with a projection for
// each part of the gated delta rule; all layers are sparse. Source:
// transformers 5.17, models/qwen3_5_moe.
#include "model/family/arch/delta_rows.h"
#include "model/family/arch/families.h"
#include "model/family/arch/shared_rows.h"
#include "model/family/config_hybrid.h"

namespace fettle::model {
namespace {

ExpertKeys expert_keys() {
  return {{"num_experts"}, 256, "moe_intermediate_size", 512, 8};
}

ModelConfig parse(const JsonObject& json) {
  ModelConfig config = parse_hybrid(json, {.vocab_size = 248320, .layers = 40});
  config.router.renormalize = true;
  const LayerConfig sparse = parse_experts(json, expert_keys());
  if (!sparse.sparse) json.refuse("num_experts", "is 0; every layer has some");
  for (LayerConfig& layer : config.layers) layer = sparse;
  finish_hybrid(json, config);
  return config;
}

constexpr WeightRow kOwnRows[] = {
    {Role::kDeltaQkv, "model.layers.{l}.linear_attn.in_proj_qkv.weight"},
    {Role::kDeltaGate, "model.layers.{l}.linear_attn.in_proj_z.weight"},
    {Role::kDeltaBeta, "model.layers.{l}.linear_attn.in_proj_b.weight"},
    {Role::kDeltaDecay, "model.layers.{l}.linear_attn.in_proj_a.weight"},
};

constexpr auto kWeights = joined(
    kFirstRows,
    kGroupedRows,
    kOwnRows,
    kDeltaRows,
    kNormRows,
    kRouterRows,
    kExpertRows,
    kGatedSharedRows,
    kLastRows);

}  // namespace

Family qwen3_5_moe_text_family() {
  return {
      "qwen3_5_moe_text",
      parse,
      write_experts_by<expert_keys>,
      kWeights,
      "shared_expert_intermediate_size"};
}

}  // namespace fettle::model
