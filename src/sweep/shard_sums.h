// SPDX-License-Identifier: Apache-2.0
// The one place where what a layer's observers add up enters the sums over
// shards and ranks.
#pragma once

#include <cstdint>
#include <optional>
#include <span>
#include <vector>

#include "ranks/shards.h"
#include "sweep/observer.h"
#include "sweep/sweep.h"

namespace fettle::sweep {

class ShardSums {
 public:
  struct Layer {
    Pass pass;
    std::int64_t layer;
    std::span<Observer* const> observers;
  };
  // Both outlive the sums. Where data isn't divided, nothing is done.
  ShardSums(const Layer& layer, const SweepOptions& options);

  void end_micro_batch(std::int64_t micro_batch);
  // Puts the sums of all shards of all ranks in the observers' place.
  void end_layer();

 private:
  void for_each(const SumVisitor& visit) const;
  // Takes the sums of own shards that end before this many micro-batches.
  void take(std::int64_t micro_batches);

  Layer layer_;
  const SweepOptions& options_;
  std::optional<ranks::ShardSum> own_;
  std::int64_t taken_ = 0;  // own shards
};

// The sum of what each micro-batch has, over all shards of all ranks.
double total(
    const std::vector<at::Tensor>& values, const SweepOptions& options);

}  // namespace fettle::sweep
