// SPDX-License-Identifier: Apache-2.0
#include <fmt/format.h>

#include <charconv>
#include <iterator>

#include "artifact/trim_plan.h"
#include "core/error.h"

namespace fettle::artifact {
namespace {

// No expert is near this wide; a larger span would only exhaust memory.
constexpr std::int64_t kLargestIndex = 1 << 24;

[[noreturn]] void refuse(const std::string& subject, const std::string& text) {
  throw UserError(
      "trim",
      subject,
      fmt::format(
          "expected ascending spans such as '0-3,7', found '{}'",
          text.substr(0, 40)));
}

}  // namespace

std::string format_spans(const std::vector<std::int64_t>& ascending) {
  fmt::memory_buffer out;
  for (std::size_t i = 0; i < ascending.size();) {
    std::size_t last = i;
    while (last + 1 < ascending.size() &&
           ascending[last + 1] == ascending[last] + 1) {
      ++last;
    }
    fmt::format_to(
        std::back_inserter(out), "{}{}", i == 0 ? "" : ",", ascending[i]);
    if (last > i) {
      fmt::format_to(std::back_inserter(out), "-{}", ascending[last]);
    }
    i = last + 1;
  }
  return fmt::to_string(out);
}

std::vector<std::int64_t> parse_spans(
    const std::string& text, const std::string& subject) {
  std::vector<std::int64_t> result;
  const char* at = text.data();
  const char* const end = at + text.size();
  const auto number = [&] {
    std::int64_t value = 0;
    const auto [next, error] = std::from_chars(at, end, value);
    if (error != std::errc() || value < 0 || value > kLargestIndex) {
      refuse(subject, text);
    }
    at = next;
    return value;
  };
  while (at != end) {
    const std::int64_t first = number();
    std::int64_t last = first;
    if (at != end && *at == '-') {
      ++at;
      last = number();
    }
    if (last < first || (!result.empty() && first <= result.back())) {
      refuse(subject, text);
    }
    for (std::int64_t i = first; i <= last; ++i) result.push_back(i);
    if (at == end) break;
    if (*at != ',' || ++at == end) refuse(subject, text);
  }
  return result;
}

}  // namespace fettle::artifact
