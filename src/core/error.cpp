// SPDX-License-Identifier: Apache-2.0
#include "core/error.h"

#include <fmt/format.h>

#include "core/one_line.h"

namespace fettle {
UserError::UserError(
    std::string_view stage, std::string_view subject, std::string_view message)
    : std::runtime_error(
          one_line(fmt::format("[{}] {}: {}", stage, subject, message))) {}

void assertion_failed(const char* condition, const char* file, int line) {
  throw InternalError(
      fmt::format("{}:{}: '{}' does not hold", file, line, condition));
}

}  // namespace fettle
