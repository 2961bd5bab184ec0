// SPDX-License-Identifier: Apache-2.0
#include <filesystem>
#include <utility>

#include "core/error.h"
#include "model/family/config_checks.h"
#include "model/family/layer_overrides.h"
#include "model/family/model_config.h"
#include "model/family/text_part.h"
#include "model/family/weight_table.h"

namespace fettle::model {
namespace {

// A sparse layer that all sparse layers are like, one width in it; null when
// there is none.
const LayerConfig* uniform_layer(const ModelConfig& config) {
  const LayerConfig* first = nullptr;
  for (const LayerConfig& layer : config.layers) {
    if (!layer.sparse) continue;
    if (first == nullptr) first = &layer;
    if (layer.top_k != first->top_k ||
        layer.expert_widths != first->expert_widths) {
      return nullptr;
    }
  }
  if (first == nullptr || first->expert_widths.front() == 0) return nullptr;
  for (const std::int64_t width : first->expert_widths) {
    if (width != first->expert_widths.front()) return nullptr;
  }
  return first;
}

bool reads_back(const Json& json, const ModelConfig& config) {
  return parse_model_config(json, "config.json").layers == config.layers;
}

}  // namespace

ModelConfig parse_model_config(const Json& json, const std::string& subject) {
  const JsonObject object(json, "model", subject);
  const Json described = text_config(object);
  const JsonObject text(described, "model", subject);
  const Family& family = find_family(text.string("model_type"));
  ModelConfig config = family.parse(text);
  config.family = family.model_type;
  config.names = default_names(json);
  config.json = json;
  apply_overrides(object, config);
  check_config(config, subject);
  return config;
}

ModelConfig read_model_config(const std::string& folder) {
  const std::filesystem::path path =
      std::filesystem::path(folder) / "config.json";
  return parse_model_config(read_json(path, "model"), path.string());
}

Json config_json(const ModelConfig& config) {
  Json json = config.json;
  json.erase("fettle");
  if (reads_back(json, config)) return json;
  if (const LayerConfig* layer = uniform_layer(config)) {
    Json uniform = json;
    find_family(config.family)
        .write_uniform(
            text_part(uniform),
            layer->num_experts(),
            layer->expert_widths.front(),
            layer->top_k);
    if (reads_back(uniform, config)) return uniform;
  }
  json["fettle"] = overrides_json(config);
  FETTLE_ASSERT(reads_back(json, config));
  return json;
}

}  // namespace fettle::model
