// SPDX-License-Identifier: Apache-2.0
#include "model/family/layer_overrides.h"

#include <fmt/format.h>

#include <algorithm>
#include <initializer_list>
#include <string>

#include "model/family/config_values.h"
#include "model/family/weight_table.h"

namespace fettle::model {
namespace {

// 1: widths and constants; 2: condensers and router biases too.
constexpr std::int64_t kFormat = 2;

void check_keys(
    const JsonObject& object, std::initializer_list<std::string_view> known) {
  for (const auto& [key, value] : object.json().items()) {
    bool found = false;
    for (const std::string_view name : known) found = found || key == name;
    if (!found) {
      object.refuse(
          key, "is not known to this version; a newer Fettle may read it");
    }
  }
}

// Ascending, each once.
std::vector<std::int64_t> read_condensers(
    const JsonObject& json, const LayerConfig& layer) {
  const std::vector<std::int64_t> experts = read_integers(json, "condensers");
  std::int64_t last = -1;
  for (const std::int64_t expert : experts) {
    if (expert <= last || expert >= layer.num_experts()) {
      json.refuse(
          "condensers",
          fmt::format(
              "must hold ascending experts below {}, found {} after {}",
              layer.num_experts(),
              expert,
              last));
    }
    last = expert;
  }
  if (static_cast<std::int64_t>(experts.size()) > layer.top_k) {
    json.refuse(
        "condensers",
        fmt::format(
            "must be at most 'top_k', {}, found {}",
            layer.top_k,
            experts.size()));
  }
  return experts;
}

void apply_layer(
    const JsonObject& json, std::int64_t format, LayerConfig& layer) {
  if (format == 1) {
    check_keys(json, {"top_k", "expert_widths", "has_constants"});
  } else {
    check_keys(
        json,
        {"top_k",
         "expert_widths",
         "has_constants",
         "condensers",
         "router_bias"});
  }
  layer.expert_widths = read_integers(json, "expert_widths");
  if (layer.expert_widths.empty()) {
    json.refuse("expert_widths", "must be a list with at least one width");
  }
  layer.top_k = read_integer(json, {{"top_k"}, {}, 1, layer.num_experts()});
  layer.has_constants = json.boolean_or("has_constants", layer.has_constants);
  layer.condensers = read_condensers(json, layer);
  layer.router_bias = json.boolean_or("router_bias", layer.router_bias);
}

bool needs_format_2(const ModelConfig& config) {
  return std::ranges::any_of(config.layers, [&](const LayerConfig& layer) {
    return adds_own(config, layer, Role::kRouterBias) ||
           !layer.condensers.empty();
  });
}

}  // namespace

void apply_overrides(const JsonObject& json, ModelConfig& config) {
  if (!json.has("fettle")) return;
  const JsonObject fettle = json.object("fettle");
  check_keys(fettle, {"format", "layers"});
  const std::int64_t format =
      read_integer(fettle, {{"format"}, {}, 1, kFormat});
  const Json& layers = fettle.at("layers");
  if (!layers.is_array() || layers.size() != config.layers.size()) {
    fettle.refuse(
        "layers",
        fmt::format(
            "must be a list of {} items, one a layer", config.layers.size()));
  }
  for (std::size_t l = 0; l < layers.size(); ++l) {
    if (layers[l].is_null() == config.layers[l].sparse) {
      fettle.refuse(
          "layers",
          fmt::format(
              "must hold {} for layer {}",
              config.layers[l].sparse ? "an object" : "null",
              l));
    }
    if (layers[l].is_null()) continue;
    apply_layer(
        JsonObject(
            layers[l],
            "model",
            fmt::format("{} layer {}", fettle.subject(), l)),
        format,
        config.layers[l]);
  }
}

Json overrides_json(const ModelConfig& config) {
  // Models without condensers stay readable to versions that know none.
  const bool format_2 = needs_format_2(config);
  Json layers = Json::array();
  for (const LayerConfig& layer : config.layers) {
    if (!layer.sparse) {
      layers.push_back(nullptr);
      continue;
    }
    layers.push_back(
        {{"top_k", layer.top_k},
         {"expert_widths", layer.expert_widths},
         {"has_constants", layer.has_constants}});
    if (!format_2) continue;
    layers.back()["condensers"] = layer.condensers;
    layers.back()["router_bias"] = layer.router_bias;
  }
  return {{"format", format_2 ? 2 : 1}, {"layers", std::move(layers)}};
}

}  // namespace fettle::model
