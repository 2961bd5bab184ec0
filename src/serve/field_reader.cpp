// SPDX-License-Identifier: Apache-2.0
#include "serve/field_reader.h"

#include <fmt/format.h>

#include <cmath>

#include "core/json_text.h"
#include "serve/api_error.h"

namespace fettle::serve {

void refuse_field(const std::string& key, const std::string& message) {
  throw ApiError(
      {.message = fmt::format("{}: {}", key, message), .param = key});
}

FieldReader::FieldReader(const Json& body) : body_(body) {
  if (!body.is_object()) {
    throw ApiError({.message = "expected a JSON object, found " + shown(body)});
  }
}

const Json* FieldReader::find(const std::string& key) {
  read_.insert(key);
  const auto found = body_.find(key);
  return found == body_.end() || found->is_null() ? nullptr : &*found;
}

double FieldReader::number(
    const std::string& key, double fallback, NumberRange range) {
  const Json* const found = find(key);
  if (found == nullptr) return fallback;
  const double value = found->is_number() ? found->get<double>() : std::nan("");
  if (!(value >= range.least && value <= range.most)) {
    refuse_field(
        key,
        fmt::format(
            "expected a number from {} to {}, found {}",
            range.least,
            range.most,
            shown(*found)));
  }
  return value;
}

std::int64_t FieldReader::integer(
    const std::string& key, std::int64_t fallback, NumberRange range) {
  const Json* const found = find(key);
  if (found == nullptr) return fallback;
  const bool whole = found->is_number() &&
                     found->get<double>() == std::trunc(found->get<double>());
  if (!whole) {
    refuse_field(key, "expected a whole number, found " + shown(*found));
  }
  return static_cast<std::int64_t>(
      number(key, static_cast<double>(fallback), range));
}

bool FieldReader::boolean(const std::string& key, bool fallback) {
  const Json* const found = find(key);
  if (found == nullptr) return fallback;
  if (!found->is_boolean()) {
    refuse_field(key, "expected true or false, found " + shown(*found));
  }
  return found->get<bool>();
}

std::optional<std::string> FieldReader::string(const std::string& key) {
  const Json* const found = find(key);
  if (found == nullptr) return std::nullopt;
  if (!found->is_string()) {
    refuse_field(key, "expected a string, found " + shown(*found));
  }
  return found->get<std::string>();
}

std::vector<std::string> FieldReader::strings(
    const std::string& key, std::size_t most) {
  const Json* const found = find(key);
  if (found == nullptr) return {};
  if (found->is_string()) return {found->get<std::string>()};
  std::vector<std::string> result;
  for (const Json& one : found->is_array() ? *found : Json::array({*found})) {
    if (!one.is_string()) {
      refuse_field(
          key, "expected a string or a list of them, found " + shown(one));
    }
    result.push_back(one.get<std::string>());
    if (result.size() > most) {
      refuse_field(key, fmt::format("expected at most {} strings", most));
    }
  }
  return result;
}

void FieldReader::ignore(const std::vector<std::string>& keys) {
  read_.insert(keys.begin(), keys.end());
}

void FieldReader::finish() const {
  for (const auto& [key, value] : body_.items()) {
    if (read_.contains(key) || value.is_null()) continue;
    refuse_field(key, "isn't known here; leave it out");
  }
}

}  // namespace fettle::serve
