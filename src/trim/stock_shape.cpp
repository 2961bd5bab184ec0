// SPDX-License-Identifier: Apache-2.0
#include "trim/stock_shape.h"

#include <algorithm>
#include <limits>
#include <numeric>
#include <optional>

namespace fettle::trim {
namespace {

struct StockShape {
  std::int64_t per_group = 0;  // experts of each router group
  std::int64_t width = 0;
  double loss = 0;
};

class StockShapes {
 public:
  StockShapes(
      const Pool& pool,
      const model::ModelConfig& config,
      const TrimOptions& options)
      : pool_(pool), config_(config), options_(options) {
    for (const Pile& pile : pool.piles) {
      sums_.push_back(pile.value_sums());
      widest_ = std::max(widest_, pile.cap);
      narrowest_ = std::max(narrowest_, pile.floor);
    }
    rank_experts();
  }

  // Bytes with the `per_group` best experts of each group, `width` neurons wide
  // or as wide as they are.
  std::int64_t bytes(std::int64_t per_group, std::int64_t width) const {
    std::int64_t total = 0;
    for (std::size_t p = 0; p < pool_.piles.size(); ++p) {
      if (rank_[p] >= per_group) continue;
      total +=
          options_.bytes.per_expert +
          std::min(width, pool_.piles[p].size()) * options_.bytes.per_neuron;
    }
    return total;
  }
  std::int64_t fewest() const { return bytes(least_per_group_, narrowest_); }

  StockShape best(std::int64_t capacity) const {
    StockShape best{least_per_group_, narrowest_, 0};
    best.loss = std::numeric_limits<double>::infinity();
    for (std::int64_t n = most_per_group_; n >= least_per_group_; --n) {
      const auto width = widest_that_fits(n, capacity);
      if (!width) continue;
      const double lost = loss(n, *width);
      if (lost < best.loss) best = {n, *width, lost};
    }
    return best;
  }

  bool is_kept(std::size_t p, const StockShape& shape) const {
    return rank_[p] < shape.per_group;
  }

 private:
  // Each expert's place in its router group; condensers come first.
  void rank_experts() {
    rank_.assign(pool_.piles.size(), 0);
    const std::int64_t groups = config_.router.groups;
    for (std::size_t first = 0; first < rank_.size();) {
      const std::int64_t l = pool_.places[first][0].layer;
      const auto count =
          static_cast<std::size_t>(config_.layers[l].num_experts());
      const std::size_t size = count / static_cast<std::size_t>(groups);
      for (std::size_t g = first; g < first + count; g += size) {
        std::vector<std::size_t> order(size);
        std::iota(order.begin(), order.end(), g);
        std::ranges::stable_sort(order, [&](std::size_t a, std::size_t b) {
          return worth(a) > worth(b);
        });
        std::int64_t spared = 0;
        for (std::size_t r = 0; r < size; ++r) {
          rank_[order[r]] = static_cast<std::int64_t>(r);
          spared += is_spared(order[r]) ? 1 : 0;
        }
        least_per_group_ = std::max(least_per_group_, spared);
      }
      least_per_group_ = std::max(
          least_per_group_,
          fewest_experts(config_.router, config_.layers[l]) / groups);
      most_per_group_ =
          std::max(most_per_group_, static_cast<std::int64_t>(size));
      first += count;
    }
  }

  double worth(std::size_t p) const {
    return is_spared(p) ? std::numeric_limits<double>::infinity()
                        : sums_[p].back();
  }

  bool is_spared(std::size_t p) const {
    const Pool::Place& place = pool_.places[p][0];
    return is_condenser(options_, place.layer, place.expert);
  }

  std::optional<std::int64_t> widest_that_fits(
      std::int64_t per_group, std::int64_t capacity) const {
    if (bytes(per_group, widest_) <= capacity) return widest_;
    std::int64_t low = narrowest_;
    if (bytes(per_group, low) > capacity) return std::nullopt;
    std::int64_t steps = (widest_ - low) / options_.round;
    while (steps > 0) {
      const std::int64_t half = (steps + 1) / 2;
      const std::int64_t middle = low + half * options_.round;
      const bool fits = bytes(per_group, middle) <= capacity;
      if (fits) low = middle;
      steps = fits ? steps - half : half - 1;
    }
    return low;
  }

  double loss(std::int64_t per_group, std::int64_t width) const {
    double total = 0;
    for (std::size_t p = 0; p < pool_.piles.size(); ++p) {
      const double all = sums_[p].back();
      total += rank_[p] >= per_group
                   ? options_.exchange_rate * all
                   : all - sums_[p][std::min(width, pool_.piles[p].size())];
    }
    return total;
  }

  const Pool& pool_;
  const model::ModelConfig& config_;
  const TrimOptions& options_;
  std::vector<std::vector<double>> sums_;  // of a pile's best k values
  std::vector<std::int64_t> rank_;
  std::int64_t least_per_group_ = 1, most_per_group_ = 0;
  std::int64_t narrowest_ = 0, widest_ = 0;
};

}  // namespace

std::int64_t stock_floor(
    const Pool& pool,
    const model::ModelConfig& config,
    const TrimOptions& options) {
  return StockShapes(pool, config, options).fewest();
}

std::vector<std::int64_t> fill_stock(
    Pool& pool,
    const model::ModelConfig& config,
    const TrimOptions& options,
    std::int64_t capacity) {
  const StockShapes shapes(pool, config, options);
  const StockShape shape = shapes.best(capacity);
  std::vector<bool> gone(pool.piles.size());
  for (std::size_t p = 0; p < gone.size(); ++p) {
    gone[p] = !shapes.is_kept(p, shape);
  }
  pool.remove(gone);
  std::vector<std::int64_t> kept;
  for (const Pile& pile : pool.piles) {
    kept.push_back(std::min(shape.width, pile.size()));
  }
  return kept;
}

}  // namespace fettle::trim
