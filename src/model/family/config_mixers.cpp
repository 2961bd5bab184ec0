// SPDX-License-Identifier: Apache-2.0
#include "model/family/config_mixers.h"

#include <fmt/format.h>

#include <algorithm>
#include <string>

#include "model/family/config_values.h"

namespace fettle::model {
namespace {

constexpr std::string_view kTypes = "layer_types";

MixerKind mixer_of(
    const JsonObject& json,
    const Json& type,
    std::span<const MixerName> names) {
  std::string known;
  for (const MixerName& name : names) {
    if (is_text(type, name.name)) return name.kind;
    known += fmt::format("{}\"{}\"", known.empty() ? "" : ", ", name.name);
  }
  json.refuse(
      kTypes,
      fmt::format("holds {}; Fettle knows {} here", type.dump(), known));
}

}  // namespace

void parse_mixers(
    const JsonObject& json,
    std::span<const MixerName> names,
    ModelConfig& config) {
  if (!json.has(kTypes)) json.refuse(kTypes, "is missing");
  const Json& types = json.at(kTypes);
  if (!types.is_array() || types.size() != config.layers.size()) {
    json.refuse(kTypes, "must be a list with one item a layer");
  }
  for (std::size_t l = 0; l < types.size(); ++l) {
    config.layers[l].mixer = mixer_of(json, types[l], names);
  }
}

std::int64_t parse_conv_width(
    const JsonObject& json, const ConvolutionKey& key) {
  constexpr std::int64_t kLeast = 2, kMost = 8;
  return read_integer(json, {{key.name}, key.fallback, kLeast, kMost});
}

}  // namespace fettle::model
