// SPDX-License-Identifier: Apache-2.0
// Values of config.json with the range they must lie in. A key may have several
// spellings; where a file uses two of them they must agree. Every function
// throws a UserError that names the key and the value.
#pragma once

#include <cstdint>
#include <optional>
#include <string_view>
#include <vector>

#include "core/json.h"

namespace fettle::model {

// No tensor of a model has a longer side.
inline constexpr std::int64_t kMaxDimension = (std::int64_t{1} << 31) - 1;

struct IntegerKey {
  std::vector<std::string_view> spellings;
  std::optional<std::int64_t> fallback;  // when absent; none: required
  std::int64_t least = 1;
  std::int64_t most = kMaxDimension;
};

std::int64_t read_integer(const JsonObject& json, const IntegerKey& key);

// As read_integer, but null (or a key that is absent and has no fallback) is no
// value.
std::optional<std::int64_t> read_optional_integer(
    const JsonObject& json, const IntegerKey& key);

// Absent: `fallback`; null, as in Python, false.
bool read_flag(const JsonObject& json, std::string_view key, bool fallback);

struct NumberKey {
  std::string_view name;
  std::optional<double> fallback;  // when absent or null; none: required
  double above = 0.0;              // the value must be larger than this
};

double read_number(const JsonObject& json, const NumberKey& key);

// A list of integers of at least 0; empty when absent or null.
std::vector<std::int64_t> read_integers(
    const JsonObject& json, std::string_view key);

bool is_text(const Json& value, std::string_view text);

// Refuses `key` unless it is absent, null or `harmless`.
void require_value(
    const JsonObject& json, std::string_view key, const Json& harmless);

// Writes `value` under each spelling that `json` has, else under the first.
void write_spellings(
    Json& json,
    const std::vector<std::string_view>& spellings,
    std::int64_t value);

}  // namespace fettle::model
