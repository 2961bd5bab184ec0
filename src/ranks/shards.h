// SPDX-License-Identifier: Apache-2.0
// Work is cut into a fixed number of shards, and each rank does a run of
// neighbours. Sums over shards are taken in an order that depends on the number
// of shards alone: neighbours in pairs, pairs of pairs, and so on, what is left
// over at the end. So they have the same bits on any number of ranks, and a
// rank keeps one partial sum, or a few where its shards aren't a whole pair.
#pragma once

#include <ATen/ATen.h>

#include <compare>
#include <cstddef>
#include <cstdint>
#include <utility>
#include <vector>

namespace fettle::ranks {

class Group;

// Neighbouring shards [first, first + count) of `total`.
struct Shards {
  std::int64_t first = 0;
  std::int64_t count = 1;
  std::int64_t total = 1;
};

// How a process takes part in divided work.
struct Team {
  Group* group = nullptr;   // null: alone
  std::int64_t shards = 1;  // at least the group's size

  bool divides() const { return group != nullptr && shards > 1; }
  // Rank 0, which writes and prints.
  bool leads() const;
  Shards own() const;
  // The most partial sums that a ShardSum of the own shards keeps at a time
  // beside the values that it is given.
  std::int64_t partial_sums() const;
  std::int64_t ranks() const;
};

// The shards of one of `size` ranks.
Shards shards_of(std::int64_t rank, std::int64_t size, std::int64_t total);

// Where runs of neighbours begin and end that have about the same weight:
// [runs + 1] from 0 to the number of weights. They depend on nothing else.
std::vector<std::size_t> even_runs(
    const std::vector<std::int64_t>& weights, std::int64_t runs);

// How values meet, and which rank needs what they come to.
struct Reduction {
  enum Kind { kSum, kMax };
  static constexpr std::int64_t kEveryRank = -1;

  Reduction(Kind k, std::int64_t o = kEveryRank) : kind(k), owner(o) {}
  friend auto operator<=>(const Reduction&, const Reduction&) = default;

  Kind kind;
  std::int64_t owner;
};

// Values of neighbouring shards, added up. All lists that meet in a sum have
// the same shapes.
struct Partial {
  std::int64_t first = 0;
  std::int64_t count = 1;
  std::vector<at::Tensor> values;
};

// Adds up what shards give. Takes the values over.
class ShardSum {
 public:
  explicit ShardSum(std::vector<Reduction> reductions)
      : reductions_(std::move(reductions)) {}

  // The next neighbours: begins where the last one ended.
  void add(Partial partial);
  // What could be added up so far without all other shards.
  const std::vector<Partial>& partials() const { return partials_; }
  const std::vector<Reduction>& reductions() const { return reductions_; }
  // All that was added.
  std::vector<at::Tensor> total() &&;

 private:
  void merge();

  std::vector<Reduction> reductions_;
  std::vector<Partial> partials_;
};

// Where the partial sums of a rank begin and end: of each, first and count, as
// a ShardSum makes them.
std::vector<Shards> partials_of(const Shards& shards);

}  // namespace fettle::ranks
