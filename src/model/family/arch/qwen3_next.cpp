// SPDX-License-Identifier: Apache-2.0
// Qwen3-Next: gated delta rule whose projections are grouped by key head, and
// gated attention in some layers. Source: transformers 5.17, models/qwen3_next.
#include "model/family/arch/delta_rows.h"
#include "model/family/arch/families.h"
#include "model/family/arch/shared_rows.h"
#include "model/family/config_hybrid.h"

namespace fettle::model {
namespace {

ExpertKeys expert_keys() {
  return {{"num_experts"}, 512, "moe_intermediate_size", 512, 10};
}

ModelConfig parse(const JsonObject& json) {
  ModelConfig config = parse_hybrid(json, {.vocab_size = 151936, .layers = 48});
  config.gated_delta.grouped = true;
  config.router.renormalize = json.boolean_or("norm_topk_prob", true);
  place_experts_by_step(json, parse_experts(json, expert_keys()), 5632, config);
  finish_hybrid(json, config);
  return config;
}

constexpr WeightRow kOwnRows[] = {
    {Role::kDeltaQkvGate, "model.layers.{l}.linear_attn.in_proj_qkvz.weight"},
    {Role::kDeltaBetaDecay, "model.layers.{l}.linear_attn.in_proj_ba.weight"},
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
    kDenseRows,
    kLastRows);

}  // namespace

Family qwen3_next_family() {
  return {
      "qwen3_next",
      parse,
      write_experts_by<expert_keys>,
      kWeights,
      "shared_expert_intermediate_size"};
}

}  // namespace fettle::model
