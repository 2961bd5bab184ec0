// SPDX-License-Identifier: Apache-2.0
#include "core/json.h"

#include <fmt/format.h>

#include <fstream>
#include <iterator>
#include <unordered_set>
#include <utility>
#include <vector>

#include "core/error.h"

namespace fettle {

Json parse_json(
    std::string_view text, std::string_view stage, std::string_view subject) {
  std::vector<std::unordered_set<std::string>> keys;
  const auto check = [&](int depth, Json::parse_event_t event, Json& parsed) {
    if (depth > kMaxJsonDepth) {
      throw UserError(
          stage,
          subject,
          fmt::format(
              "JSON nested deeper than {} levels; no such file needs that",
              kMaxJsonDepth));
    }
    if (event == Json::parse_event_t::object_start) {
      keys.emplace_back();
    } else if (event == Json::parse_event_t::object_end) {
      keys.pop_back();
    } else if (event == Json::parse_event_t::key) {
      const auto& key = parsed.get_ref<const std::string&>();
      if (!keys.back().insert(key).second) {
        throw UserError(
            stage, subject, fmt::format("duplicate JSON key '{}'", key));
      }
    }
    return true;
  };
  try {
    return Json::parse(text, check);
  } catch (const Json::exception& error) {
    throw UserError(
        stage, subject, fmt::format("not valid JSON: {}", error.what()));
  }
}

Json read_json(const std::filesystem::path& path, std::string_view stage) {
  std::ifstream file(path, std::ios::binary);
  if (!file) {
    throw UserError(stage, path.string(), "cannot be opened for reading");
  }
  const std::string text{
      std::istreambuf_iterator<char>(file), std::istreambuf_iterator<char>()};
  if (file.bad()) throw UserError(stage, path.string(), "cannot be read");
  return parse_json(text, stage, path.string());
}

JsonObject::JsonObject(
    const Json& value, std::string stage, std::string subject)
    : value_(&value), stage_(std::move(stage)), subject_(std::move(subject)) {
  if (!value.is_object()) {
    throw UserError(
        stage_,
        subject_,
        fmt::format("expected a JSON object, found {}", value.type_name()));
  }
}

void JsonObject::refuse(std::string_view key, std::string_view why) const {
  throw UserError(stage_, subject_, fmt::format("'{}' {}", key, why));
}

bool JsonObject::has(std::string_view key) const {
  const auto found = value_->find(key);
  return found != value_->end() && !found->is_null();
}

const Json& JsonObject::at(std::string_view key) const {
  const auto found = value_->find(key);
  if (found == value_->end()) refuse(key, "is missing");
  return *found;
}

namespace {

[[noreturn]] void wrong_type(
    const JsonObject& object, std::string_view key, std::string_view expected) {
  object.refuse(
      key,
      fmt::format(
          "must be {}, found {}", expected, object.at(key).type_name()));
}

}  // namespace

std::int64_t JsonObject::integer(std::string_view key) const {
  const Json& value = at(key);
  if (value.is_number_unsigned() &&
      value.get<std::uint64_t>() > static_cast<std::uint64_t>(INT64_MAX)) {
    refuse(key, "is larger than any count can be");
  }
  if (!value.is_number_integer()) wrong_type(*this, key, "an integer");
  return value.get<std::int64_t>();
}

double JsonObject::number(std::string_view key) const {
  if (!at(key).is_number()) wrong_type(*this, key, "a number");
  return at(key).get<double>();
}

bool JsonObject::boolean(std::string_view key) const {
  if (!at(key).is_boolean()) wrong_type(*this, key, "true or false");
  return at(key).get<bool>();
}

std::string JsonObject::string(std::string_view key) const {
  if (!at(key).is_string()) wrong_type(*this, key, "a string");
  return at(key).get<std::string>();
}

std::int64_t JsonObject::integer_or(
    std::string_view key, std::int64_t fallback) const {
  return has(key) ? integer(key) : fallback;
}

double JsonObject::number_or(std::string_view key, double fallback) const {
  return has(key) ? number(key) : fallback;
}

bool JsonObject::boolean_or(std::string_view key, bool fallback) const {
  return has(key) ? boolean(key) : fallback;
}

std::string JsonObject::string_or(
    std::string_view key, std::string fallback) const {
  return has(key) ? string(key) : std::move(fallback);
}

JsonObject JsonObject::object(std::string_view key) const {
  return JsonObject(at(key), stage_, fmt::format("{} '{}'", subject_, key));
}

}  // namespace fettle
