// SPDX-License-Identifier: Apache-2.0
// What families with sparse layers after DeepSeek-V3's design have in common:
// a router whose choice a bias corrects, shared experts that are counted in
// experts and stored as one MLP, and dense layers before the sparse ones.
#pragma once

#include <cstdint>
#include <vector>

#include "core/json.h"
#include "model/family/config_common.h"
#include "model/family/model_config.h"

namespace fettle::model {

struct CorrectedRouterDefaults {
  std::int64_t groups = 1;
  std::int64_t topk_groups = 1;
  double scale = 1.0;
  bool renormalize = true;
};

// Sigmoid scores, corrected by a bias for the choice; groups by the sum of
// their two best. Source: transformers 5.17, models/deepseek_v3,
// DeepseekV3TopkRouter.
void parse_corrected_router(
    const JsonObject& json,
    const CorrectedRouterDefaults& defaults,
    RouterConfig& router);

// What a family calls its counts of experts, and their defaults.
struct SparseKeys {
  ExpertKeys experts;
  std::string_view shared;
  std::int64_t default_shared = 1;
  std::int64_t default_dense_width = 0;
};

// Makes the layers of which `sparse` is true sparse, with their shared expert,
// and the others dense. Refuses to have no experts.
void place_experts(
    const JsonObject& json,
    const SparseKeys& keys,
    const std::vector<bool>& sparse,
    ModelConfig& config);

// True for all layers but the first `first_k_dense_replace`.
std::vector<bool> sparse_after_leading(
    const JsonObject& json, std::int64_t fallback, std::int64_t layers);

// As `mlp_layer_types` lists them, "dense" or "sparse"; `fallback` where it is
// absent or null.
std::vector<bool> sparse_by_types(
    const JsonObject& json, const std::vector<bool>& fallback);

// As write_experts. The experts' width is also the unit in which the shared
// expert's width is told, which must not change with it.
void write_sparse(
    Json& json,
    const SparseKeys& keys,
    const std::vector<std::int64_t>& count_width_top_k);

// A Family::write_uniform that writes under the keys of one family.
template <SparseKeys (*kKeys)()>
void write_sparse_by(
    Json& json, std::int64_t experts, std::int64_t width, std::int64_t top_k) {
  write_sparse(json, kKeys(), {experts, width, top_k});
}

}  // namespace fettle::model
