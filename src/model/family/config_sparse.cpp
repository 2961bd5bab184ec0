// SPDX-License-Identifier: Apache-2.0
#include "model/family/config_sparse.h"

#include <fmt/format.h>

#include <optional>
#include <string>

namespace fettle::model {
namespace {

constexpr std::int64_t kMostShared = 4'096;

std::int64_t shared_experts(const JsonObject& json, const SparseKeys& keys) {
  return read_optional_integer(
             json, {{keys.shared}, keys.default_shared, 0, kMostShared})
      .value_or(0);
}

}  // namespace

void parse_corrected_router(
    const JsonObject& json,
    const CorrectedRouterDefaults& defaults,
    RouterConfig& router) {
  // Two names of one and the same.
  const bool named =
      json.has("scoring_func") && is_text(json.at("scoring_func"), "noaux_tc");
  if (!named) require_value(json, "scoring_func", "sigmoid");
  require_value(json, "topk_method", "noaux_tc");
  router.score = RouterScore::kSigmoid;
  router.correction_bias = true;
  router.group_score = GroupScore::kTopTwoSum;
  router.outside_groups = OutsideGroups::kMinusInfinity;
  router.renormalize = read_flag(json, "norm_topk_prob", defaults.renormalize);
  router.added_sum = 1e-20;
  router.scale = read_number(json, {"routed_scaling_factor", defaults.scale});
  router.groups = read_integer(json, {{"n_group"}, defaults.groups});
  std::optional<std::int64_t> chosen = defaults.topk_groups;
  if (chosen > router.groups) chosen.reset();
  router.topk_groups =
      read_integer(json, {{"topk_group"}, chosen, 1, router.groups});
}

void place_experts(
    const JsonObject& json,
    const SparseKeys& keys,
    const std::vector<bool>& sparse,
    ModelConfig& config) {
  const std::int64_t dense_width =
      read_integer(json, {{"intermediate_size"}, keys.default_dense_width});
  LayerConfig with_experts = parse_experts(json, keys.experts);
  if (!with_experts.sparse) {
    json.refuse(keys.experts.count.front(), "is 0; a sparse layer has experts");
  }
  const std::int64_t shared = shared_experts(json, keys);
  if (shared > 0) config.shared_expert = SharedExpert::kPlain;
  with_experts.shared_width = shared * with_experts.expert_widths.front();
  for (std::size_t l = 0; l < config.layers.size(); ++l) {
    if (sparse.at(l)) {
      config.layers[l] = with_experts;
    } else {
      config.layers[l].dense_width = dense_width;
    }
  }
}

std::vector<bool> sparse_after_leading(
    const JsonObject& json, std::int64_t fallback, std::int64_t layers) {
  const std::int64_t leading =
      read_optional_integer(json, {{"first_k_dense_replace"}, fallback, 0})
          .value_or(fallback);
  std::vector<bool> sparse;
  for (std::int64_t l = 0; l < layers; ++l) sparse.push_back(l >= leading);
  return sparse;
}

std::vector<bool> sparse_by_types(
    const JsonObject& json, const std::vector<bool>& fallback) {
  constexpr std::string_view kKey = "mlp_layer_types";
  if (!json.has(kKey)) return fallback;
  const Json& types = json.at(kKey);
  if (!types.is_array() || types.size() != fallback.size()) {
    json.refuse(kKey, "must be a list with one item a layer");
  }
  std::vector<bool> sparse;
  for (const Json& type : types) {
    sparse.push_back(is_text(type, "sparse"));
    if (!sparse.back() && !is_text(type, "dense")) {
      json.refuse(
          kKey,
          fmt::format(
              "holds {}; Fettle knows \"dense\" and \"sparse\"", type.dump()));
    }
  }
  return sparse;
}

void write_sparse(
    Json& json,
    const SparseKeys& keys,
    const std::vector<std::int64_t>& count_width_top_k) {
  const JsonObject old(json, "model", "config.json");
  const std::int64_t shared =
      shared_experts(old, keys) *
      parse_experts(old, keys.experts).expert_widths.at(0);
  const std::int64_t width = count_width_top_k.at(1);
  if (shared > 0 && width > 0 && shared % width == 0) {
    json[std::string(keys.shared)] = shared / width;
  }
  write_experts(json, keys.experts, count_width_top_k);
}

}  // namespace fettle::model
