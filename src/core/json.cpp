// SPDX-License-Identifier: Apache-2.0
#include "core/json.h"

#include <fmt/format.h>

#include <cmath>
#include <utility>

#include "core/error.h"
#include "core/json_text.h"

namespace fettle {

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
  // Beyond 64 bits the parser reads floating point.
  if (value.is_number_float() && std::abs(value.get<double>()) >= 0x1p63) {
    refuse(key, "is larger than any count can be");
  }
  if (!value.is_number_integer()) wrong_type(*this, key, "an integer");
  return value.get<std::int64_t>();
}

double JsonObject::number(std::string_view key) const {
  if (!at(key).is_number()) wrong_type(*this, key, "a number");
  const double value = at(key).get<double>();
  if (!std::isfinite(value)) {
    refuse(key, fmt::format("is {}, expected a finite number", shown(at(key))));
  }
  return value;
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

std::string shown(const Json& value) {
  constexpr std::size_t kMost = 80;
  if (value.is_number_float() && !std::isfinite(value.get<double>())) {
    if (std::isnan(value.get<double>())) return "NaN";
    return value.get<double>() > 0 ? "Infinity" : "-Infinity";
  }
  std::string text = value.dump(-1, ' ', true, Json::error_handler_t::replace);
  if (text.size() > kMost) text = text.substr(0, kMost - 3) + "...";
  return text;
}

}  // namespace fettle
