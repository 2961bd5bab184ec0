// SPDX-License-Identifier: Apache-2.0
#include "core/error.h"

#include <fmt/format.h>

namespace fettle {
namespace {

// Names from files end up in messages: a control character or a line break in
// one must not break the promise of a single line.
std::string one_line(std::string text) {
  for (char& c : text) {
    if (static_cast<unsigned char>(c) < 0x20 || c == 0x7f) c = '?';
  }
  return text;
}

}  // namespace

UserError::UserError(
    std::string_view stage, std::string_view subject, std::string_view message)
    : std::runtime_error(
          one_line(fmt::format("[{}] {}: {}", stage, subject, message))) {}

void assertion_failed(const char* condition, const char* file, int line) {
  throw InternalError(
      fmt::format("{}:{}: '{}' does not hold", file, line, condition));
}

}  // namespace fettle
