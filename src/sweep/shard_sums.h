// SPDX-License-Identifier: Apache-2.0
// The one place where what observers add up, of a layer, the head or the
// embeddings, enters the sums over shards and ranks.
#pragma once

#include <cstdint>
#include <functional>
#include <optional>
#include <span>
#include <string>
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
  // Shows the sums of all observers to a visitor.
  using Show = std::function<void(const SumVisitor& visit)>;
  // Observers and options outlive the sums. Where data isn't divided, nothing
  // is done.
  ShardSums(const Layer& layer, const SweepOptions& options);
  ShardSums(std::string work, Show show, const SweepOptions& options);

  void end_micro_batch(std::int64_t micro_batch);
  // Puts the sums of all shards of all ranks in the observers' place.
  void end();

 private:
  // Takes the sums of own shards that end before this many micro-batches.
  void take(std::int64_t micro_batches);

  Show show_;
  const SweepOptions& options_;
  std::optional<ranks::ShardSum> own_;
  std::int64_t taken_ = 0;  // own shards
};

// The sum of what each micro-batch has, over all shards of all ranks.
double total(
    const std::vector<at::Tensor>& values, const SweepOptions& options);

}  // namespace fettle::sweep
