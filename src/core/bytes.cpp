// SPDX-License-Identifier: Apache-2.0
#include "core/bytes.h"

#include <fmt/format.h>

#include <array>
#include <charconv>
#include <cmath>
#include <utility>

#include "core/error.h"

namespace fettle {
namespace {

constexpr double kLargest = 4611686018427387904.0;  // 2^62

constexpr std::array<std::pair<std::string_view, double>, 10> kUnits{{
    {"", 1.0},
    {"B", 1.0},
    {"KiB", 1024.0},
    {"MiB", 1048576.0},
    {"GiB", 1073741824.0},
    {"TiB", 1099511627776.0},
    {"KB", 1e3},
    {"MB", 1e6},
    {"GB", 1e9},
    {"TB", 1e12},
}};

}  // namespace

std::int64_t parse_bytes(std::string_view text) {
  double value = 0;
  const auto [end, error] =
      std::from_chars(text.data(), text.data() + text.size(), value);
  const std::string_view unit =
      text.substr(static_cast<std::size_t>(end - text.data()));
  if (error == std::errc{} && std::isfinite(value) && value >= 0) {
    for (const auto& [name, factor] : kUnits) {
      if (unit == name && value * factor <= kLargest) {
        return static_cast<std::int64_t>(value * factor);
      }
    }
  }
  throw UsageError(
      "size", text, "expected a size such as 6GiB, 512MiB or 1.5GB");
}

std::string format_bytes(std::int64_t bytes) {
  constexpr std::array<const char*, 5> names{"B", "KiB", "MiB", "GiB", "TiB"};
  double value = static_cast<double>(bytes);
  std::size_t unit = 0;
  while (value >= 1024 && unit + 1 < names.size()) {
    value /= 1024;
    ++unit;
  }
  if (unit == 0) return fmt::format("{} B", bytes);
  const int decimals = value < 10 ? 2 : value < 100 ? 1 : 0;
  return fmt::format("{:.{}f} {}", value, decimals, names[unit]);
}

}  // namespace fettle
