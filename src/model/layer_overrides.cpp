// SPDX-License-Identifier: Apache-2.0
#include "model/layer_overrides.h"

#include <fmt/format.h>

#include <initializer_list>
#include <string>

#include "model/config_values.h"

namespace fettle::model {
namespace {

constexpr std::int64_t kFormat = 1;

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

void apply_layer(const JsonObject& json, LayerConfig& layer) {
  check_keys(json, {"top_k", "expert_widths", "has_constants"});
  layer.expert_widths = read_integers(json, "expert_widths");
  if (layer.expert_widths.empty()) {
    json.refuse("expert_widths", "must be a list with at least one width");
  }
  layer.top_k = read_integer(json, {{"top_k"}, {}, 1, layer.num_experts()});
  layer.has_constants = json.boolean_or("has_constants", false);
}

}  // namespace

void apply_overrides(const JsonObject& json, ModelConfig& config) {
  if (!json.has("fettle")) return;
  const JsonObject fettle = json.object("fettle");
  check_keys(fettle, {"format", "layers"});
  read_integer(fettle, {{"format"}, {}, kFormat, kFormat});
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
        config.layers[l]);
  }
}

Json overrides_json(const ModelConfig& config) {
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
  }
  return {{"format", kFormat}, {"layers", std::move(layers)}};
}

}  // namespace fettle::model
