// SPDX-License-Identifier: Apache-2.0
#include "ranks/shards.h"

#include <algorithm>
#include <bit>
#include <cstdlib>
#include <numeric>
#include <utility>

#include "core/error.h"
#include "ranks/group.h"

namespace fettle::ranks {
namespace {

// Whether two runs of neighbours are the halves of a pair.
template <typename Run>
bool are_pair(const Run& a, const Run& b) {
  return a.count == b.count && a.first % (2 * a.count) == 0;
}

void reduce(Reduction how, at::Tensor& into, const at::Tensor& values) {
  if (how.kind == Reduction::kMax) {
    at::maximum_out(into, into, values);
  } else {
    into.add_(values);
  }
}

}  // namespace

std::int64_t Team::ranks() const {
  return group == nullptr ? 1 : group->size();
}

bool Team::leads() const { return group == nullptr || group->rank() == 0; }

Shards Team::own() const {
  if (group == nullptr) return {0, shards, shards};
  return shards_of(group->rank(), group->size(), shards);
}

std::int64_t Team::partial_sums() const {
  if (!divides()) return 0;
  return std::bit_width(static_cast<std::uint64_t>(own().count));
}

Shards shards_of(std::int64_t rank, std::int64_t size, std::int64_t total) {
  const std::int64_t first = rank * total / size;
  return {first, (rank + 1) * total / size - first, total};
}

std::vector<std::size_t> even_runs(
    const std::vector<std::int64_t>& weights, std::int64_t runs) {
  const std::int64_t all =
      std::accumulate(weights.begin(), weights.end(), std::int64_t{0});
  std::vector<std::size_t> starts{0};
  std::int64_t before = 0;
  std::size_t next = 0;
  for (std::int64_t r = 1; r < runs; ++r) {
    const std::int64_t border = all * r / runs;
    // To the nearer side of a weight that straddles the border.
    while (next < weights.size() && std::abs(before + weights[next] - border) <=
                                        std::abs(before - border)) {
      before += weights[next++];
    }
    starts.push_back(next);
  }
  starts.push_back(weights.size());
  return starts;
}

void ShardSum::merge() {
  Partial last = std::move(partials_.back());
  partials_.pop_back();
  Partial& into = partials_.back();
  into.count += last.count;
  for (std::size_t i = 0; i < last.values.size(); ++i) {
    reduce(reductions_[i], into.values[i], last.values[i]);
  }
}

void ShardSum::add(Partial partial) {
  const at::NoGradGuard no_grad;
  FETTLE_ASSERT(partial.values.size() == reductions_.size());
  partials_.push_back(std::move(partial));
  while (partials_.size() > 1 &&
         are_pair(partials_[partials_.size() - 2], partials_.back())) {
    merge();
  }
}

std::vector<at::Tensor> ShardSum::total() && {
  const at::NoGradGuard no_grad;
  while (partials_.size() > 1) merge();
  return std::move(partials_.front().values);
}

std::vector<Shards> partials_of(const Shards& shards) {
  std::vector<Shards> runs;
  for (std::int64_t s = 0; s < shards.count; ++s) {
    runs.push_back({shards.first + s, 1, shards.total});
    while (runs.size() > 1 && are_pair(runs[runs.size() - 2], runs.back())) {
      runs[runs.size() - 2].count *= 2;
      runs.pop_back();
    }
  }
  return runs;
}

}  // namespace fettle::ranks
