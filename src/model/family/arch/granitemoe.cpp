// SPDX-License-Identifier: Apache-2.0
// Granite's mixtures, without and with a shared expert: GQA, routing whose
// chosen logits pass the softmax, and four multipliers. On disk gate and up
// rows of all experts are one stack, and those of the shared expert one matrix.
// Source: transformers 5.17, models/granitemoe, models/granitemoeshared and
// conversion_mapping.py.
#include "model/family/arch/families.h"
#include "model/family/arch/granite_rows.h"
#include "model/family/arch/shared_rows.h"
#include "model/family/config_granite.h"

namespace fettle::model {
namespace {

ModelConfig parse(const JsonObject& json) {
  ModelConfig config = parse_granite(json);
  place_granite_experts(json, 0, config);
  check_layer_types(json, config);
  return config;
}

ModelConfig parse_shared(const JsonObject& json) {
  ModelConfig config = parse_granite(json);
  place_granite_experts(
      json, read_integer(json, {{kGraniteSharedKey}, 0, 0}), config);
  check_layer_types(json, config);
  return config;
}

constexpr auto kPlainRows = joined(
    kFirstRows,
    kGroupedRows,
    kNormRows,
    kGraniteRouterRows,
    kGraniteExpertRows,
    kLastRows);
constexpr auto kSharedRows = joined(
    kFirstRows,
    kGroupedRows,
    kNormRows,
    kGraniteRouterRows,
    kGraniteExpertRows,
    kGraniteSharedRows,
    kLastRows);

}  // namespace

Family granitemoe_family() {
  return {
      "granitemoe", parse, write_experts_by<granite_expert_keys>, kPlainRows};
}

Family granitemoeshared_family() {
  return {
      .model_type = "granitemoeshared",
      .parse = parse_shared,
      .write_uniform = write_experts_by<granite_expert_keys>,
      .weights = kSharedRows,
      .shared_key = kGraniteSharedKey,
      .shared_in_neurons = true};
}

}  // namespace fettle::model
