// SPDX-License-Identifier: Apache-2.0
#include "model/family/config_rope.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <cmath>

#include "model/family/config_values.h"

namespace fettle::model {
namespace {

constexpr std::array<std::string_view, 19> kKnownKeys = {
    "rope_type",
    "type",
    "rope_theta",
    "factor",
    "original_max_position_embeddings",
    "attention_factor",
    "beta_fast",
    "beta_slow",
    "mscale",
    "mscale_all_dim",
    "truncate",
    "short_factor",
    "long_factor",
    "low_freq_factor",
    "high_freq_factor",
    "partial_rotary_factor",
    // Tell of the model's past, and how images' positions are split: the text's
    // are the same in every section.
    "finetuned",
    "mrope_section",
    "mrope_interleaved"};

// A number, or nothing when it is absent, null or 0: what transformers' tests
// for truth make of it.
std::optional<double> read_nonzero(
    const JsonObject& rope, std::string_view key) {
  const double value = rope.number_or(key, 0.0);
  if (value == 0.0) return std::nullopt;
  return value;
}

std::vector<double> read_factors(
    const JsonObject& rope, std::string_view key, std::int64_t dim) {
  const Json& list = rope.at(key);
  const auto positive = [](const Json& item) {
    return item.is_number() && item.get<double>() > 0.0 &&
           std::isfinite(item.get<double>());
  };
  if (!list.is_array() || list.size() != static_cast<std::size_t>(dim / 2) ||
      !std::all_of(list.begin(), list.end(), positive)) {
    rope.refuse(
        key,
        fmt::format(
            "must be a list of {} positive numbers, one for each pair of "
            "rotated dimensions",
            dim / 2));
  }
  return list.get<std::vector<double>>();
}

void check_keys(const JsonObject& rope) {
  for (const auto& [key, value] : rope.json().items()) {
    if (value.is_object()) {
      rope.refuse(
          key,
          "is an object; one rotary embedding for all layers is "
          "all that Fettle knows");
    }
    if (std::find(kKnownKeys.begin(), kKnownKeys.end(), key) ==
        kKnownKeys.end()) {
      rope.refuse(key, "is no rotary option that Fettle knows");
    }
  }
}

constexpr std::string_view kPart = "partial_rotary_factor";
constexpr std::string_view kCount = "rotary_dim";

// How many of a head's `whole` dimensions `key` makes rotate.
std::int64_t read_rotated(
    const JsonObject& json,
    std::string_view key,
    std::int64_t whole,
    double fallback) {
  const auto part_of = [&](double part) {
    return static_cast<std::int64_t>(
        static_cast<double>(whole) * std::min(part, 2.0));
  };
  const std::int64_t dim = key == kCount
                               ? read_integer(json, {{key}, {}})
                               : part_of(read_number(json, {key, fallback}));
  if (dim < 2 || dim > whole || dim % 2 != 0) {
    json.refuse(
        key,
        fmt::format(
            "makes {} of a head's {} dimensions rotate; expected an even "
            "number of them",
            dim,
            whole));
  }
  return dim;
}

// How many pairs of a head's dimensions turn at all.
std::int64_t proportional_angles(const JsonObject& rope, std::int64_t dim) {
  const double part = read_number(rope, {kPart, 1.0});
  if (part > 1.0) {
    rope.refuse(kPart, fmt::format("is {}; it must be at most 1", part));
  }
  return static_cast<std::int64_t>(part * static_cast<double>(dim)) / 2;
}

// Where rotary_dim tells it too, they must agree.
std::int64_t rotated_dimensions(
    const JsonObject& config,
    const JsonObject& rope,
    const RopeDefaults& defaults) {
  if (!defaults.partial) {
    require_value(rope, kPart, 1.0);
    require_value(config, kPart, 1.0);
    return defaults.dim;
  }
  std::optional<std::int64_t> found;
  const auto add = [&](const JsonObject& json, std::string_view key) {
    if (!json.has(key)) return;
    const std::int64_t dim =
        read_rotated(json, key, defaults.dim, *defaults.partial);
    if (found && *found != dim) {
      json.refuse(
          key,
          fmt::format(
              "makes {} dimensions of a head rotate, but another option {}",
              dim,
              *found));
    }
    found = dim;
  };
  add(rope, kPart);
  // As transformers 5 has it, which writes its default beside what it read.
  if (!found) add(config, kPart);
  add(config, kCount);
  return found ? *found
               : read_rotated(config, kPart, defaults.dim, *defaults.partial);
}

// The length that the model was first trained for.
std::int64_t original_length(
    const JsonObject& config, const JsonObject& rope, std::int64_t length) {
  const IntegerKey key{{"original_max_position_embeddings"}, length, 2};
  // transformers lets the key outside the rotary options win.
  return config.has("original_max_position_embeddings")
             ? read_integer(config, key)
             : read_integer(rope, key);
}

void parse_yarn(const JsonObject& rope, RopeConfig& result) {
  result.beta_fast = read_nonzero(rope, "beta_fast").value_or(32.0);
  result.beta_slow = read_nonzero(rope, "beta_slow").value_or(1.0);
  result.truncate = rope.boolean_or("truncate", true);
  if (result.theta == 1.0) {
    rope.refuse("rope_theta", "is 1, for which yarn is not defined");
  }
}

void parse_llama3(const JsonObject& rope, RopeConfig& result) {
  result.low_freq_factor = read_number(rope, {"low_freq_factor", {}});
  result.high_freq_factor = read_number(rope, {"high_freq_factor", {}});
  if (result.high_freq_factor <= result.low_freq_factor) {
    rope.refuse(
        "high_freq_factor",
        fmt::format(
            "is {}; it must be larger than 'low_freq_factor', {}",
            result.high_freq_factor,
            result.low_freq_factor));
  }
}

void parse_kind(
    const JsonObject& config, const JsonObject& rope, RopeConfig& result) {
  const bool lengthens = result.type == "yarn" || result.type == "longrope" ||
                         result.type == "llama3";
  if (!lengthens && result.type != "linear" && result.type != "dynamic" &&
      result.type != "proportional") {
    rope.refuse(
        rope.has("rope_type") ? "rope_type" : "type",
        fmt::format(
            "is '{}'; Fettle knows default, linear, dynamic, yarn, longrope, "
            "llama3 and proportional",
            result.type));
  }
  std::optional<double> implied;
  if (lengthens) {
    result.original_max_position =
        original_length(config, rope, result.max_position);
    if (result.type != "llama3") {
      implied = static_cast<double>(result.max_position) /
                static_cast<double>(result.original_max_position);
    }
  }
  if (result.type == "proportional") implied = 1.0;
  result.factor = read_number(rope, {"factor", implied});
  result.mscale = read_nonzero(rope, "mscale");
  result.mscale_all_dim = read_nonzero(rope, "mscale_all_dim");
  if (result.type == "yarn") parse_yarn(rope, result);
  if (result.type == "llama3") parse_llama3(rope, result);
  if (result.type == "longrope") {
    result.short_factor = read_factors(rope, "short_factor", result.dim);
    result.long_factor = read_factors(rope, "long_factor", result.dim);
  }
  if (result.type == "dynamic" && result.dim <= 2) {
    rope.refuse("rope_type", "is 'dynamic', which needs heads wider than 2");
  }
  if ((result.type == "yarn" || result.type == "longrope") &&
      rope.has("attention_factor")) {
    result.attention_factor = read_number(rope, {"attention_factor", {}});
  }
}

}  // namespace

RopeConfig parse_rope(const JsonObject& config, const RopeDefaults& defaults) {
  const auto filled = [&config](std::string_view key) {
    return config.has(key) && !config.at(key).empty();
  };
  const Json nothing = Json::object();
  const JsonObject rope = filled("rope_scaling") ? config.object("rope_scaling")
                          : filled("rope_parameters")
                              ? config.object("rope_parameters")
                              : JsonObject(nothing, "model", config.subject());
  check_keys(rope);
  RopeConfig result;
  result.type = rope.string_or("rope_type", rope.string_or("type", "default"));
  if (result.type == "proportional") {
    result.dim = defaults.dim;
    result.angles = proportional_angles(rope, defaults.dim);
  } else {
    result.dim = rotated_dimensions(config, rope, defaults);
  }
  result.max_position = defaults.max_position;
  result.original_max_position = defaults.max_position;
  const JsonObject& theta = rope.has("rope_theta") ? rope : config;
  result.theta = read_number(theta, {"rope_theta", defaults.theta});
  if (result.type == "mrope") result.type = "default";
  if (result.type != "default") parse_kind(config, rope, result);
  return result;
}

}  // namespace fettle::model
