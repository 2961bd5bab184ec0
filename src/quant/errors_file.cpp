// SPDX-License-Identifier: Apache-2.0
#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <cstdint>
#include <string_view>

#include "artifact/run_state.h"
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
  bool priced = false;
  for (const MeasuredOption& option : weight.options) {
    json["schemes"].push_back(scheme_name(option.scheme));
    json["bytes"].push_back(option.bytes);
    json["errors"].push_back(option.error);
    if (option.nats > 0) priced = true;
  }
  for (const MeasuredOption& option : weight.options) {
    if (priced) json["nats"].push_back(option.nats);
  }
  return json;
}

// Bounds of a sum of products in fp32 that is not 0: what is computed from sums
// within them is finite.
constexpr double kLeastSum = 1e-46;
constexpr double kLargestSum = 1e60;

double sum_of(const JsonObject& object, const char* key, const Json& value) {
  const double found = value.is_number() ? value.get<double>() : -1;
  if (found != 0 && !(found >= kLeastSum && found <= kLargestSum)) {
    object.refuse(
        key,
        fmt::format(
            "expected 0, or a number from {} to {}", kLeastSum, kLargestSum));
  }
  return found;
}

std::int64_t count_of(
    const JsonObject& object,
    const char* key,
    const Json& value,
    std::int64_t most) {
  // What is too large for the type comes out below 0.
  const auto found = value.is_number_integer() ? value.get<std::int64_t>() : -1;
  if (found < 0 || found > most) {
    object.refuse(key, fmt::format("expected a whole number up to {}", most));
  }
  return found;
}

const Json& list_of(const JsonObject& object, const char* key) {
  const Json& list = object.at(key);
  if (!list.is_array()) object.refuse(key, "expected a list");
  return list;
}

Scheme scheme_of(
    const JsonObject& object, const MeasuredWeight& weight, const Json& value) {
  const std::string name = value.is_string() ? value.get<std::string>() : "";
  const std::vector<std::string> known = scheme_names();
  if (std::ranges::find(known, name) == known.end()) {
    object.refuse(
        "schemes", fmt::format("expected any of {}", fmt::join(known, ", ")));
  }
  const Scheme scheme = parse_scheme(name);
  if (std::ranges::count(weight.options, scheme, &MeasuredOption::scheme) > 0) {
    object.refuse("schemes", fmt::format("expected {} once", name));
  }
  return scheme;
}

std::string place_of(std::string_view role, std::int64_t expert) {
  return expert < 0 ? std::string(role) : fmt::format("{} {}", role, expert);
}

// The entry of one weight, which saw at most `tokens` tokens.
MeasuredWeight read_weight(
    const JsonObject& object,
    const model::ModelConfig& config,
    const model::WeightId& id,
    std::int64_t tokens) {
  const std::string expected = place_of(model::role_name(id.role), id.expert);
  const std::string found =
      place_of(object.string("role"), object.integer_or("expert", -1));
  if (found != expected) {
    object.refuse(
        "role", fmt::format("expected {}, found {}", expected, found));
  }
  MeasuredWeight weight{
      .id = id,
      .tokens = count_of(object, "tokens", object.at("tokens"), tokens),
      .energy = sum_of(object, "energy", object.at("energy"))};
  const Json& schemes = list_of(object, "schemes");
  const Json& bytes = list_of(object, "bytes");
  const Json& errors = list_of(object, "errors");
  if (schemes.empty() || schemes.size() != bytes.size() ||
      schemes.size() != errors.size()) {
    object.refuse("schemes", "expected lists of one length");
  }
  const bool priced = object.has("nats");
  if (priced && list_of(object, "nats").size() != schemes.size()) {
    object.refuse("nats", "expected as many as there are schemes");
  }
  // No form takes more than 8 bytes a weight and a header of 64.
  const std::int64_t most = 8 * model::weight_numel(config, id) + 64;
  for (std::size_t i = 0; i < schemes.size(); ++i) {
    weight.options.push_back(
        {scheme_of(object, weight, schemes[i]),
         count_of(object, "bytes", bytes[i], most),
         sum_of(object, "errors", errors[i])});
    if (!priced) continue;
    weight.options.back().nats =
        sum_of(object, "nats", list_of(object, "nats")[i]);
  }
  return weight;
}

LayerErrors read_layer(
    const JsonObject& object,
    const model::ModelConfig& config,
    std::int64_t l,
    std::int64_t tokens) {
  LayerErrors layer;
  layer.outputs = sum_of(object, "outputs", object.at("outputs"));
  const Json& weights = list_of(object, "weights");
  const std::vector<model::WeightId> ids = measured_weights(config, l);
  if (weights.size() != ids.size()) {
    object.refuse(
        "weights",
        fmt::format("expected {}, found {}", ids.size(), weights.size()));
  }
  for (std::size_t i = 0; i < ids.size(); ++i) {
    layer.weights.push_back(read_weight(
        JsonObject(weights[i], "quant", object.subject()),
        config,
        ids[i],
        tokens));
  }
  return layer;
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
    const Json& identity,
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
  artifact::check_same_run(object.object("identity").json(), identity, "quant");
  QuantErrors errors;
  errors.identity = identity;
  errors.tokens = count_of(object, "tokens", object.at("tokens"), INT64_MAX);
  const Json& rows = list_of(object, "layers");
  if (static_cast<std::int64_t>(rows.size()) > config.num_layers() + 1) {
    object.refuse("layers", "has more layers than the model");
  }
  for (std::size_t r = 0; r < rows.size(); ++r) {
    const auto l = static_cast<std::int64_t>(r) - 1;
    const JsonObject row(
        rows[r], "quant", fmt::format("{}: layer {}", subject, l));
    errors.layers.push_back(read_layer(row, config, l, errors.tokens));
  }
  return errors;
}

}  // namespace fettle::quant
