// SPDX-License-Identifier: Apache-2.0
#include "model/family/config_values.h"

#include <fmt/format.h>

#include <cmath>
#include <string>

#include "core/json_text.h"

namespace fettle::model {
namespace {

void check_range(
    const JsonObject& json,
    std::string_view name,
    std::int64_t value,
    const IntegerKey& key) {
  if (value >= key.least && value <= key.most) return;
  json.refuse(
      name,
      fmt::format(
          "is {}; it must lie in [{}, {}]", value, key.least, key.most));
}

// The spelling in use, empty when there is none.
std::string_view find_spelling(const JsonObject& json, const IntegerKey& key) {
  std::string_view found;
  for (const std::string_view name : key.spellings) {
    if (!json.json().contains(name)) continue;
    if (!found.empty() && json.at(found) != json.at(name)) {
      json.refuse(
          name,
          fmt::format(
              "is {}, but '{}', which means the same, is {}",
              shown(json.at(name)),
              found,
              shown(json.at(found))));
    }
    if (found.empty()) found = name;
  }
  return found;
}

}  // namespace

std::int64_t read_integer(const JsonObject& json, const IntegerKey& key) {
  const std::string_view name = find_spelling(json, key);
  if (name.empty()) {
    if (!key.fallback) json.refuse(key.spellings.front(), "is missing");
    return *key.fallback;
  }
  const std::int64_t value = json.integer(name);
  check_range(json, name, value, key);
  return value;
}

std::optional<std::int64_t> read_optional_integer(
    const JsonObject& json, const IntegerKey& key) {
  const std::string_view name = find_spelling(json, key);
  if (name.empty()) return key.fallback;
  if (json.at(name).is_null()) return std::nullopt;
  return read_integer(json, key);
}

bool read_flag(const JsonObject& json, std::string_view key, bool fallback) {
  if (!json.json().contains(key)) return fallback;
  return json.boolean_or(key, false);
}

double read_number(const JsonObject& json, const NumberKey& key) {
  if (!json.has(key.name)) {
    if (!key.fallback) json.refuse(key.name, "is missing");
    return *key.fallback;
  }
  const double value = json.number(key.name);
  if (!std::isfinite(value) || !(value > key.above)) {
    json.refuse(
        key.name,
        fmt::format("is {}; it must be larger than {}", value, key.above));
  }
  return value;
}

std::vector<std::int64_t> read_integers(
    const JsonObject& json, std::string_view key) {
  std::vector<std::int64_t> values;
  if (!json.has(key)) return values;
  const Json& list = json.at(key);
  if (!list.is_array()) {
    json.refuse(key, fmt::format("must be a list, found {}", list.type_name()));
  }
  for (const Json& item : list) {
    if (!item.is_number_integer() || item < 0 || item > kMaxDimension) {
      json.refuse(
          key,
          fmt::format(
              "holds {}; its items must be integers in [0, {}]",
              shown(item),
              kMaxDimension));
    }
    values.push_back(item.get<std::int64_t>());
  }
  return values;
}

bool is_text(const Json& value, std::string_view text) {
  return value.is_string() && value.get_ref<const std::string&>() == text;
}

void require_value(
    const JsonObject& json, std::string_view key, const Json& harmless) {
  if (!json.has(key) || json.at(key) == harmless) return;
  const std::string value = shown(json.at(key));
  json.refuse(
      key,
      harmless.is_null()
          ? fmt::format("is {}; Fettle can't run such a model", value)
          : fmt::format("is {}; Fettle knows only {}", value, harmless.dump()));
}

void write_spellings(
    Json& json,
    const std::vector<std::string_view>& spellings,
    std::int64_t value) {
  bool written = false;
  for (const std::string_view name : spellings) {
    if (!json.contains(name)) continue;
    json[std::string(name)] = value;
    written = true;
  }
  if (!written) json[std::string(spellings.front())] = value;
}

}  // namespace fettle::model
