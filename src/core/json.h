// SPDX-License-Identifier: Apache-2.0
// JSON as Fettle accepts it: well-formed but for Python's NaN and Infinity, at
// most kMaxJsonDepth deep, no key twice in one object; else a UserError.
#pragma once

#include <cstdint>
#include <filesystem>
#include <nlohmann/json.hpp>
#include <string>
#include <string_view>

namespace fettle {

using Json = nlohmann::json;

inline constexpr int kMaxJsonDepth = 64;

// Parses `text`; `stage` and `subject` name the source in errors.
// Throws UserError on malformed, too deep or duplicated content.
Json parse_json(
    std::string_view text, std::string_view stage, std::string_view subject);

// Reads and parses a whole file. Throws UserError also when it can't be read.
Json read_json(const std::filesystem::path& path, std::string_view stage);

// A JSON object with the name of where it came from, whose getters throw a
// UserError naming the key, the type expected and the type found.
class JsonObject {
 public:
  // Throws UserError unless `value` is an object. Keeps a reference to `value`.
  JsonObject(const Json& value, std::string stage, std::string subject);

  bool has(std::string_view key) const;  // present and not null
  const Json& at(std::string_view key) const;
  std::int64_t integer(std::string_view key) const;
  double number(std::string_view key) const;
  bool boolean(std::string_view key) const;
  std::string string(std::string_view key) const;
  std::int64_t integer_or(std::string_view key, std::int64_t fallback) const;
  double number_or(std::string_view key, double fallback) const;
  bool boolean_or(std::string_view key, bool fallback) const;
  std::string string_or(std::string_view key, std::string fallback) const;
  JsonObject object(std::string_view key) const;

  const Json& json() const { return *value_; }
  const std::string& subject() const { return subject_; }
  // Throws a UserError about `key`.
  [[noreturn]] void refuse(std::string_view key, std::string_view why) const;

 private:
  const Json* value_;
  std::string stage_;
  std::string subject_;
};

}  // namespace fettle
