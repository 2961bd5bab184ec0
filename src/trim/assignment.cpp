// SPDX-License-Identifier: Apache-2.0
#include "trim/assignment.h"

#include <limits>

#include "core/error.h"

namespace fettle::trim {
namespace {

constexpr std::int64_t kFree = -1;

// One row after the other is given a column, along the cheapest path through
// the rows that have one. The potentials keep every reduced cost at least 0.
class Assigner {
 public:
  Assigner(std::span<const double> cost, std::int64_t n)
      : cost_(cost),
        n_(n),
        of_row_(n, 0.0),
        of_column_(n, 0.0),
        row_(n, kFree) {}

  std::vector<std::int64_t> run() {
    for (std::int64_t i = 0; i < n_; ++i) place(i);
    std::vector<std::int64_t> column(static_cast<std::size_t>(n_));
    for (std::int64_t j = 0; j < n_; ++j) column[row_[j]] = j;
    return column;
  }

 private:
  void place(std::int64_t first) {
    constexpr double kFar = std::numeric_limits<double>::infinity();
    std::vector<double> distance(static_cast<std::size_t>(n_), kFar);
    std::vector<std::int64_t> before(static_cast<std::size_t>(n_), kFree);
    std::vector<bool> reached(static_cast<std::size_t>(n_), false);
    std::int64_t row = first;
    std::int64_t last = kFree;
    double length = 0;
    while (true) {
      std::int64_t nearest = kFree;
      for (std::int64_t j = 0; j < n_; ++j) {
        if (reached[j]) continue;
        const double there =
            length + cost_[row * n_ + j] - of_row_[row] - of_column_[j];
        if (there < distance[j]) {
          distance[j] = there;
          before[j] = last;
        }
        if (nearest == kFree || distance[j] < distance[nearest]) nearest = j;
      }
      length = distance[nearest];
      reached[nearest] = true;
      last = nearest;
      if (row_[nearest] == kFree) break;
      row = row_[nearest];
    }
    // Columns that were passed, and their rows, move by what was left to go.
    of_row_[first] += length;
    for (std::int64_t j = 0; j < n_; ++j) {
      if (!reached[j] || j == last) continue;
      of_column_[j] -= length - distance[j];
      of_row_[row_[j]] += length - distance[j];
    }
    for (std::int64_t j = last; j != kFree; j = before[j]) {
      row_[j] = before[j] == kFree ? first : row_[before[j]];
    }
  }

  std::span<const double> cost_;
  std::int64_t n_;
  std::vector<double> of_row_, of_column_;  // potentials
  std::vector<std::int64_t> row_;           // of each column
};

}  // namespace

std::vector<std::int64_t> assign(std::span<const double> cost, std::int64_t n) {
  FETTLE_ASSERT(static_cast<std::int64_t>(cost.size()) == n * n);
  return Assigner(cost, n).run();
}

}  // namespace fettle::trim
