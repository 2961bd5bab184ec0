// SPDX-License-Identifier: Apache-2.0
#include "text/apply_merges.h"

#include <algorithm>
#include <array>
#include <cstddef>
#include <queue>
#include <tuple>

namespace fettle::text {
namespace {

constexpr std::size_t kScanLimit = 48;

void merge_by_scan(
    const MergeTable& merges, std::vector<std::int32_t>& symbols) {
  std::array<Merge, kScanLimit> pairs;
  std::size_t count = symbols.size();
  for (std::size_t i = 0; i + 1 < count; ++i) {
    pairs[i] = merges.find(symbols[i], symbols[i + 1]);
  }
  while (count > 1) {
    std::size_t best = 0;
    for (std::size_t i = 1; i + 1 < count; ++i) {
      if (pairs[i].rank < pairs[best].rank) best = i;
    }
    if (pairs[best].token < 0) break;
    symbols[best] = pairs[best].token;
    std::copy(
        symbols.begin() + static_cast<std::ptrdiff_t>(best) + 2,
        symbols.begin() + static_cast<std::ptrdiff_t>(count),
        symbols.begin() + static_cast<std::ptrdiff_t>(best) + 1);
    --count;
    for (std::size_t i = best; i + 1 < count; ++i) pairs[i] = pairs[i + 1];
    if (best > 0) {
      pairs[best - 1] = merges.find(symbols[best - 1], symbols[best]);
    }
    if (best + 1 < count) {
      pairs[best] = merges.find(symbols[best], symbols[best + 1]);
    }
  }
  symbols.resize(count);
}

// The symbols as a linked list, and the merges possible in it as a queue.
class MergeQueue {
 public:
  MergeQueue(const MergeTable& merges, std::vector<std::int32_t>& symbols)
      : merges_(merges), symbols_(symbols) {
    const auto count = static_cast<std::int64_t>(symbols.size());
    next_.resize(symbols.size());
    previous_.resize(symbols.size());
    for (std::int64_t i = 0; i < count; ++i) {
      previous_[index(i)] = i - 1;
      next_[index(i)] = i + 1 < count ? i + 1 : -1;
    }
    for (std::int64_t i = 0; i + 1 < count; ++i) offer(i);
  }

  void run() {
    while (!queue_.empty()) {
      const Candidate top = queue_.top();
      queue_.pop();
      if (symbols_[index(top.position)] == kGone) continue;
      const std::int64_t right = next_[index(top.position)];
      if (right < 0) continue;
      // A candidate is stale once one of its two symbols was merged.
      const Merge merge =
          merges_.find(symbols_[index(top.position)], symbols_[index(right)]);
      if (merge.rank != top.rank) continue;
      symbols_[index(top.position)] = merge.token;
      symbols_[index(right)] = kGone;
      next_[index(top.position)] = next_[index(right)];
      if (next_[index(right)] >= 0) {
        previous_[index(next_[index(right)])] = top.position;
      }
      if (previous_[index(top.position)] >= 0) {
        offer(previous_[index(top.position)]);
      }
      offer(top.position);
    }
    std::erase(symbols_, kGone);
  }

 private:
  static constexpr std::int32_t kGone = -1;

  struct Candidate {
    std::uint32_t rank;
    std::int64_t position;
    bool operator>(const Candidate& other) const {
      return std::tie(rank, position) > std::tie(other.rank, other.position);
    }
  };

  static std::size_t index(std::int64_t position) {
    return static_cast<std::size_t>(position);
  }

  void offer(std::int64_t left) {
    const std::int64_t right = next_[index(left)];
    if (right < 0) return;
    const Merge merge =
        merges_.find(symbols_[index(left)], symbols_[index(right)]);
    if (merge.token >= 0) queue_.push({merge.rank, left});
  }

  const MergeTable& merges_;
  std::vector<std::int32_t>& symbols_;
  std::vector<std::int64_t> next_;  // -1 at the end
  std::vector<std::int64_t> previous_;
  std::priority_queue<Candidate, std::vector<Candidate>, std::greater<>> queue_;
};

}  // namespace

void apply_merges(
    const MergeTable& merges, std::vector<std::int32_t>& symbols) {
  if (symbols.size() <= kScanLimit) {
    merge_by_scan(merges, symbols);
  } else {
    MergeQueue(merges, symbols).run();
  }
}

}  // namespace fettle::text
