// SPDX-License-Identifier: Apache-2.0
#include "sweep/shard_sums.h"

#include <fmt/format.h>

#include <utility>

#include "core/error.h"
#include "ranks/group.h"
#include "ranks/ordered_sum.h"

namespace fettle::sweep {

ShardSums::ShardSums(const Layer& layer, const SweepOptions& options)
    : layer_(layer), options_(options) {
  if (!options.team.divides()) return;
  FETTLE_ASSERT(
      static_cast<std::int64_t>(options.shard_ends.size()) ==
      options.team.own().count);
  options.team.group->begin(fmt::format(
      "the {} pass of layer {}",
      layer.pass == Pass::kForward ? "forward" : "backward",
      layer.layer));
  std::vector<ranks::Reduction> reductions;
  for_each(
      [&](at::Tensor&, ranks::Reduction how) { reductions.push_back(how); });
  if (!reductions.empty()) own_.emplace(std::move(reductions));
  take(0);
}

void ShardSums::for_each(const SumVisitor& visit) const {
  for (Observer* o : layer_.observers) {
    o->for_each_sum(layer_.pass, layer_.layer, visit);
  }
}

void ShardSums::take(std::int64_t micro_batches) {
  if (!own_) return;
  const at::NoGradGuard no_grad;
  const ranks::Shards shards = options_.team.own();
  while (taken_ < shards.count &&
         options_.shard_ends[taken_] <= micro_batches) {
    ranks::Partial part{shards.first + taken_, 1, {}};
    for_each([&](at::Tensor& sum, ranks::Reduction) {
      part.values.push_back(std::exchange(sum, at::zeros_like(sum)));
    });
    own_->add(std::move(part));
    ++taken_;
  }
}

void ShardSums::end_micro_batch(std::int64_t micro_batch) {
  take(micro_batch + 1);
}

void ShardSums::end_layer() {
  if (!own_) return;
  std::vector<at::Tensor> into;
  for_each([&](at::Tensor& sum, ranks::Reduction) { into.push_back(sum); });
  ranks::sum_over_ranks(options_.team, std::move(*own_), into);
}

}  // namespace fettle::sweep
