// SPDX-License-Identifier: Apache-2.0
#include <fmt/format.h>

#include <algorithm>
#include <cmath>

#include "core/error.h"
#include "quant/errors.h"

namespace fettle::quant {
namespace {

constexpr std::int64_t kErrorsFormat = 1;

Json weight_json(const MeasuredWeight& weight) {
  Json json = {
      {"role", model::role_name(weight.id.role)},
      {"tokens", weight.tokens},
      {"energy", weight.energy}};
  if (weight.id.expert >= 0) json["expert"] = weight.id.expert;
  for (const MeasuredOption& option : weight.options) {
    json["schemes"].push_back(scheme_name(option.scheme));
    json["bytes"].push_back(option.bytes);
    json["errors"].push_back(option.error);
  }
  return json;
}

double positive(const JsonObject& object, const char* key, const Json& value) {
  if (!value.is_number() || !(value.get<double>() >= 0)) {
    object.refuse(key, "expected a number that is not negative");
  }
  return value.get<double>();
}

MeasuredWeight read_weight(
    const JsonObject& object,
    const model::ModelConfig& config,
    std::int64_t l) {
  const std::string role = object.string("role");
  const std::int64_t expert = object.integer_or("expert", -1);
  MeasuredWeight weight;
  bool known = false;
  for (const model::WeightId& id :
       l < 0 ? model::model_weights(config) : model::layer_weights(config, l)) {
    if (id.layer != l || id.expert != expert) continue;
    if (model::role_name(id.role) != role || !part_of(id.role)) continue;
    weight.id = id;
    known = true;
  }
  if (!known) object.refuse("role", "names no matrix of the model");
  weight.tokens = object.integer("tokens");
  weight.energy = positive(object, "energy", object.at("energy"));
  const Json& schemes = object.at("schemes");
  const Json& bytes = object.at("bytes");
  const Json& errors = object.at("errors");
  if (!schemes.is_array() || !bytes.is_array() || !errors.is_array() ||
      schemes.empty() || schemes.size() != bytes.size() ||
      schemes.size() != errors.size()) {
    object.refuse("schemes", "expected lists of one length");
  }
  for (std::size_t i = 0; i < schemes.size(); ++i) {
    if (!schemes[i].is_string()) object.refuse("schemes", "expected names");
    weight.options.push_back(
        {parse_scheme(schemes[i].get<std::string>()),
         static_cast<std::int64_t>(positive(object, "bytes", bytes[i])),
         positive(object, "errors", errors[i])});
  }
  return weight;
}

}  // namespace

Json QuantErrors::to_json() const {
  Json rows = Json::array();
  for (const LayerErrors& layer : layers) {
    Json weights = Json::array();
    for (const MeasuredWeight& weight : layer.weights) {
      weights.push_back(weight_json(weight));
    }
    rows.push_back(
        {{"outputs", layer.outputs}, {"weights", std::move(weights)}});
  }
  return {
      {"format", kErrorsFormat},
      {"identity", identity},
      {"tokens", tokens},
      {"layers", std::move(rows)}};
}

QuantErrors QuantErrors::from_json(
    const Json& json,
    const model::ModelConfig& config,
    const std::string& subject) {
  const JsonObject object(json, "quant", subject);
  if (object.integer("format") != kErrorsFormat) {
    object.refuse(
        "format",
        fmt::format(
            "expected {}, found {}; measure again with this version",
            kErrorsFormat,
            object.integer("format")));
  }
  QuantErrors errors;
  errors.identity = object.object("identity").json();
  errors.tokens = object.integer("tokens");
  const Json& rows = object.at("layers");
  if (!rows.is_array()) object.refuse("layers", "expected a list");
  if (static_cast<std::int64_t>(rows.size()) > config.num_layers() + 1) {
    object.refuse("layers", "has more layers than the model");
  }
  for (std::size_t r = 0; r < rows.size(); ++r) {
    const auto l = static_cast<std::int64_t>(r) - 1;
    const JsonObject row(
        rows[r], "quant", fmt::format("{}: layer {}", subject, l));
    LayerErrors layer;
    layer.outputs = positive(row, "outputs", row.at("outputs"));
    const Json& weights = row.at("weights");
    if (!weights.is_array()) row.refuse("weights", "expected a list");
    for (const Json& weight : weights) {
      layer.weights.push_back(
          read_weight(JsonObject(weight, "quant", row.subject()), config, l));
    }
    errors.layers.push_back(std::move(layer));
  }
  return errors;
}

}  // namespace fettle::quant
