// SPDX-License-Identifier: Apache-2.0
#include "model/family/config_kinds.h"

#include <algorithm>
#include <string>

namespace fettle::model {
namespace {

constexpr std::string_view kRope = "rope_parameters";

}  // namespace

void set_attentions(
    const AttentionConfig& full,
    const AttentionConfig& sliding,
    ModelConfig& config) {
  const auto windowed = [](const LayerConfig& layer) {
    return layer.sliding_window > 0;
  };
  if (std::ranges::all_of(config.layers, windowed)) {
    config.attentions = {sliding};
    return;
  }
  config.attentions = {full};
  if (std::ranges::none_of(config.layers, windowed)) return;
  config.attentions.push_back(sliding);
  for (LayerConfig& layer : config.layers) {
    layer.attention = windowed(layer) ? 1 : 0;
  }
}

Json with_rope_of(const JsonObject& json, std::string_view type) {
  Json result = json.json();
  if (!json.has(kRope)) return result;
  const JsonObject all = json.object(kRope);
  for (const auto& [key, value] : all.json().items()) {
    if (key != kFullType && key != kSlidingType) {
      json.refuse(kRope, "must hold options for each type of layer");
    }
  }
  const JsonObject own = all.object(type);
  if (!own.has("rope_theta")) own.refuse("rope_theta", "is missing");
  result[std::string(kRope)] = own.json();
  return result;
}

}  // namespace fettle::model
