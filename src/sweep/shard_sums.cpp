// SPDX-License-Identifier: Apache-2.0
#include "sweep/shard_sums.h"

#include <fmt/format.h>

#include <utility>

#include "core/error.h"
#include "ranks/group.h"
#include "ranks/ordered_sum.h"

namespace fettle::sweep {

ShardSums::ShardSums(const Layer& layer, const SweepOptions& options)
    : ShardSums(
          fmt::format(
              "the {} pass of layer {}",
              layer.pass == Pass::kForward ? "forward" : "backward",
              layer.layer),
          [layer](const SumVisitor& visit) {
            for (Observer* o : layer.observers) {
              o->for_each_sum(layer.pass, layer.layer, visit);
            }
          },
          options) {}

ShardSums::ShardSums(std::string work, Show show, const SweepOptions& options)
    : show_(std::move(show)), options_(options) {
  if (!options.team.divides()) return;
  options.team.group->begin(std::move(work));
  std::vector<ranks::Reduction> reductions;
  show_([&](at::Tensor&, ranks::Reduction how) { reductions.push_back(how); });
  if (reductions.empty()) return;
  FETTLE_ASSERT(
      static_cast<std::int64_t>(options.shard_ends.size()) ==
      options.team.own().count);
  own_.emplace(std::move(reductions));
  take(0);
}

void ShardSums::take(std::int64_t micro_batches) {
  if (!own_) return;
  const at::NoGradGuard no_grad;
  const ranks::Shards shards = options_.team.own();
  while (taken_ < shards.count &&
         options_.shard_ends[taken_] <= micro_batches) {
    ranks::Partial part{shards.first + taken_, 1, {}};
    show_([&](at::Tensor& sum, ranks::Reduction) {
      part.values.push_back(std::exchange(sum, at::zeros_like(sum)));
    });
    own_->add(std::move(part));
    ++taken_;
  }
}

void ShardSums::end_micro_batch(std::int64_t micro_batch) {
  take(micro_batch + 1);
}

void ShardSums::end() {
  if (!own_) return;
  std::vector<at::Tensor> into;
  show_([&](at::Tensor& sum, ranks::Reduction) { into.push_back(sum); });
  ranks::sum_over_ranks(options_.team, std::move(*own_), into);
}

namespace {

double sum_of(
    const std::vector<at::Tensor>& values, std::size_t first, std::size_t end) {
  double sum = 0.0;
  for (std::size_t m = first; m < end; ++m) {
    sum += values[m].sum(at::kDouble).item<double>();
  }
  return sum;
}

}  // namespace

double total(
    const std::vector<at::Tensor>& values, const SweepOptions& options) {
  if (!options.team.divides()) return sum_of(values, 0, values.size());
  ranks::ShardSum own({ranks::Reduction::kSum});
  std::int64_t shard = options.team.own().first;
  std::size_t first = 0;
  for (const std::int64_t end : options.shard_ends) {
    const auto last = static_cast<std::size_t>(end);
    own.add(
        {shard++,
         1,
         {at::full({1}, sum_of(values, first, last), at::kDouble)}});
    first = last;
  }
  const at::Tensor sum = at::empty({1}, at::kDouble);
  ranks::sum_over_ranks(options.team, std::move(own), {sum});
  return sum.item<double>();
}

}  // namespace fettle::sweep
