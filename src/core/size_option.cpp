// SPDX-License-Identifier: Apache-2.0
#include "core/size_option.h"

#include <fmt/format.h>

#include <array>
#include <charconv>
#include <cmath>
#include <string>
#include <utility>

#include "core/error.h"

namespace fettle {
namespace {

constexpr double kLargest = 4611686018427387904.0;  // 2^62

// Units as tools write them, in lower case. A prefix alone is binary, as it is
// to most tools.
constexpr std::array<std::pair<std::string_view, double>, 13> kUnits{{
    {"b", 1.0},
    {"k", 1024.0},
    {"kib", 1024.0},
    {"kb", 1e3},
    {"m", 1048576.0},
    {"mib", 1048576.0},
    {"mb", 1e6},
    {"g", 1073741824.0},
    {"gib", 1073741824.0},
    {"gb", 1e9},
    {"t", 1099511627776.0},
    {"tib", 1099511627776.0},
    {"tb", 1e12},
}};

std::string_view trimmed(std::string_view text) {
  const std::size_t begin = text.find_first_not_of(" \t");
  if (begin == std::string_view::npos) return {};
  return text.substr(begin, text.find_last_not_of(" \t") - begin + 1);
}

std::string lower_case(std::string_view text) {
  std::string result(text);
  for (char& c : result) {
    if (c >= 'A' && c <= 'Z') c = static_cast<char>(c - 'A' + 'a');
  }
  return result;
}

}  // namespace

std::int64_t parse_size(std::string_view text, std::string_view option) {
  const std::string_view size = trimmed(text);
  double value = 0;
  const auto [end, error] =
      std::from_chars(size.data(), size.data() + size.size(), value);
  const std::string unit = lower_case(
      trimmed(size.substr(static_cast<std::size_t>(end - size.data()))));
  if (error == std::errc{} && std::isfinite(value) && value >= 0) {
    if (unit.empty() && value == 0) return 0;
    if (unit.empty()) {
      throw UsageError(
          "size",
          option,
          fmt::format(
              "expected a unit behind {}: write {}GiB (of 2^30 bytes), {}GB "
              "(of "
              "10^9) or {}B",
              size,
              size,
              size,
              size));
    }
    for (const auto& [name, factor] : kUnits) {
      if (unit == name && value * factor <= kLargest) {
        return static_cast<std::int64_t>(value * factor);
      }
    }
  }
  throw UsageError(
      "size",
      option,
      fmt::format(
          "expected a size such as 12GiB, 12G (the same), 12GB or 512MiB, "
          "found '{}'",
          text));
}

}  // namespace fettle
