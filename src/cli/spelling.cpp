// SPDX-License-Identifier: Apache-2.0
#include "cli/spelling.h"

#include <algorithm>
#include <numeric>

namespace fettle::cli {
namespace {

// Levenshtein distance, a row at a time.
std::size_t distance(std::string_view a, std::string_view b) {
  std::vector<std::size_t> row(b.size() + 1);
  std::iota(row.begin(), row.end(), 0);
  for (std::size_t i = 0; i < a.size(); ++i) {
    std::size_t diagonal = row[0];
    row[0] = i + 1;
    for (std::size_t j = 0; j < b.size(); ++j) {
      const std::size_t substituted = diagonal + (a[i] == b[j] ? 0 : 1);
      diagonal = row[j + 1];
      row[j + 1] = std::min({row[j] + 1, row[j + 1] + 1, substituted});
    }
  }
  return row.back();
}

}  // namespace

std::string nearest(
    std::string_view word, const std::vector<std::string>& names) {
  std::string best;
  std::size_t fewest = std::min<std::size_t>(3, word.size() / 2) + 1;
  for (const auto& name : names) {
    const std::size_t steps = distance(word, name);
    if (steps < fewest) {
      fewest = steps;
      best = name;
    }
  }
  return best;
}

}  // namespace fettle::cli
