// SPDX-License-Identifier: Apache-2.0
#include "text/sample.h"

#include <fmt/format.h>

#include <algorithm>
#include <cstddef>

#include "core/error.h"
#include "text/source_counts.h"

namespace fettle::text {

std::vector<Sample> windows(const Sample& sample, std::int64_t seq_len) {
  if (seq_len < 2) {
    throw UserError(
        "data",
        "seq-len",
        fmt::format(
            "must be at least 2, since a window's first token isn't scored; "
            "found {}",
            seq_len));
  }
  const auto size = static_cast<std::int64_t>(sample.ids.size());
  std::vector<Sample> out;
  for (std::int64_t begin = 0; begin + 1 < size; begin += seq_len) {
    const std::int64_t end = std::min(begin + seq_len, size);
    out.push_back(
        {{sample.ids.begin() + begin, sample.ids.begin() + end},
         {sample.labels.begin() + begin, sample.labels.begin() + end}});
  }
  return out;
}

std::int64_t scored_from(const Sample& sample, std::size_t first) {
  if (sample.labels.size() <= first) return 0;
  return std::count_if(
      sample.labels.begin() + static_cast<std::ptrdiff_t>(first),
      sample.labels.end(),
      [](std::int32_t label) { return label != kMasked; });
}

}  // namespace fettle::text
