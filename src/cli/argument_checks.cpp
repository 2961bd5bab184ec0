// SPDX-License-Identifier: Apache-2.0
#include "cli/argument_checks.h"

#include <fmt/format.h>

#include <cmath>
#include <cstdlib>
#include <string>

#include "core/error.h"
#include "text/utf8.h"

namespace fettle::cli {
namespace {

constexpr double kLargestCount = 1e12;

std::string check_finite(const std::string& text) {
  const double value = std::strtod(text.c_str(), nullptr);
  if (std::isfinite(value)) return {};
  return fmt::format("expected a finite number, found '{}'", text);
}

std::string check_count(const std::string& text) {
  const double value = std::strtod(text.c_str(), nullptr);
  if (std::abs(value) <= kLargestCount) return {};
  return fmt::format("expected a number up to 10^12, found '{}'", text);
}

}  // namespace

void check_numbers(CLI::App& app) {
  for (CLI::Option* option : app.get_options()) {
    const std::string type = option->get_type_name();
    if (type.starts_with("FLOAT")) {
      option->check(CLI::Validator(check_finite, ""));
    } else if (type.starts_with("INT")) {
      option->check(CLI::Validator(check_count, ""));
    }
  }
}

void require_utf8(std::string_view argument) {
  if (text::is_utf8(argument)) return;
  throw UserError(
      "cli",
      argument,
      "is not UTF-8, as names in results must be; rename the file, or make a "
      "link to it");
}

}  // namespace fettle::cli
