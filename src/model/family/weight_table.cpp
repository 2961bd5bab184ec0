// SPDX-License-Identifier: Apache-2.0
#include "model/family/weight_table.h"

#include <algorithm>

#include "core/error.h"
#include "model/family/text_part.h"

namespace fettle::model {
namespace {

void append_layer(
    const ModelConfig& config, std::int64_t l, std::vector<WeightId>& weights) {
  const LayerConfig& layer = config.layers.at(static_cast<std::size_t>(l));
  for (const WeightRow& row : find_family(config.family).weights) {
    const RoleInfo& role = role_info(row.role);
    if (role.scope == RoleScope::kModel || !role.exists(config, layer))
      continue;
    if (role.scope != RoleScope::kExpert) {
      weights.push_back({row.role, l, -1});
      continue;
    }
    for (std::int64_t e = 0; e < layer.num_experts(); ++e) {
      weights.push_back({row.role, l, e});
    }
  }
}

}  // namespace

const WeightRow& weight_row(const ModelConfig& config, Role role) {
  const auto rows = find_family(config.family).weights;
  const auto row = std::ranges::find(rows, role, &WeightRow::role);
  FETTLE_ASSERT(row != rows.end());
  return *row;
}

bool adds_own(const ModelConfig& config, const LayerConfig& layer, Role role) {
  return role_info(role).exists(config, layer) && weight_row(config, role).own;
}

std::vector<WeightId> layer_weights(
    const ModelConfig& config, std::int64_t layer) {
  std::vector<WeightId> weights;
  append_layer(config, layer, weights);
  return weights;
}

std::vector<WeightId> model_weights(const ModelConfig& config) {
  std::vector<WeightId> weights = {{Role::kEmbedTokens}};
  for (std::int64_t l = 0; l < config.num_layers(); ++l) {
    append_layer(config, l, weights);
  }
  weights.push_back({Role::kFinalNorm});
  if (!config.tie_word_embeddings) weights.push_back({Role::kLmHead});
  return weights;
}

std::vector<std::int64_t> weight_shape(
    const ModelConfig& config, const WeightId& id) {
  static const LayerConfig kNoLayer;
  const RoleInfo& role = role_info(id.role);
  if (role.scope == RoleScope::kModel) return role.shape(config, kNoLayer, 0);
  const LayerConfig& layer =
      config.layers.at(static_cast<std::size_t>(id.layer));
  const std::int64_t width =
      role.scope == RoleScope::kExpert
          ? layer.expert_widths.at(static_cast<std::size_t>(id.expert))
          : 0;
  return role.shape(config, layer, width);
}

std::vector<std::int64_t> stored_shape(
    const ModelConfig& config, const WeightId& id) {
  std::vector<std::int64_t> shape = weight_shape(config, id);
  if (weight_row(config, id.role).as_row) shape.insert(shape.begin(), 1);
  return shape;
}

std::int64_t weight_numel(const ModelConfig& config, const WeightId& id) {
  std::int64_t numel = 1;
  for (const std::int64_t side : weight_shape(config, id)) numel *= side;
  return numel;
}

std::string expand_name(std::string_view pattern, const WeightId& id) {
  std::string name(pattern);
  if (const auto at = name.find("{l}"); at != std::string::npos) {
    name.replace(at, 3, std::to_string(id.layer));
  }
  if (const auto at = name.find("{e}"); at != std::string::npos) {
    name.replace(at, 3, std::to_string(id.expert));
  }
  return name;
}

std::string row_name(const ModelConfig& config, const WeightId& id) {
  return expand_name(weight_row(config, id.role).name, id);
}

std::string weight_name(const ModelConfig& config, const WeightId& id) {
  return placed_name(config.names, row_name(config, id));
}

}  // namespace fettle::model
