// SPDX-License-Identifier: Apache-2.0
#include "trim/mixed.h"

#include <algorithm>
#include <functional>
#include <limits>
#include <numeric>

#include "core/error.h"

namespace fettle::trim {
namespace {

constexpr double kNever = -std::numeric_limits<double>::infinity();

class Exchange {
 public:
  Exchange(
      const Pool& pool,
      const model::ModelConfig& config,
      const TrimOptions& options)
      : pool_(pool), config_(config), options_(options) {
    for (const Pile& pile : pool.piles) {
      sums_.push_back(pile.value_sums());
    }
  }

  // Experts that go together: one of every router group of a layer.
  struct Level {
    std::vector<std::size_t> piles;
    std::int64_t bytes = 0;  // of what they would keep
  };
  struct Choice {
    std::vector<bool> gone;     // by pile
    std::vector<Level> levels;  // of those that go
    std::int64_t bytes = 0;     // of those that stay
  };
  Choice at(double price) const {
    Choice choice{std::vector<bool>(pool_.piles.size(), false), {}, 0};
    std::vector<Expert> experts;
    for (std::size_t p = 0; p < pool_.piles.size(); ++p) {
      experts.push_back(expert_at(p, price));
    }
    for (std::size_t first = 0; first < experts.size();) {
      const std::int64_t layer = pool_.places[first][0].layer;
      const auto count =
          static_cast<std::size_t>(config_.layers[layer].num_experts());
      FETTLE_ASSERT(first + count <= experts.size());
      choose_in_layer(
          config_.layers[layer],
          std::span(experts).subspan(first, count),
          first,
          choice);
      first += count;
    }
    for (std::size_t p = 0; p < experts.size(); ++p) {
      if (!choice.gone[p]) choice.bytes += experts[p].bytes;
    }
    return choice;
  }

  // A price at which all goes that may.
  double highest() const {
    const ModelBytes& bytes = options_.bytes;
    double highest = 1;
    for (std::size_t p = 0; p < pool_.piles.size(); ++p) {
      const double all = sums_[p].back();
      if (!pool_.piles[p].values.empty()) {
        highest = std::max(highest, pool_.piles[p].values.front());
      }
      highest = std::max(
          highest,
          options_.exchange_rate * all /
              static_cast<double>(std::max<std::int64_t>(bytes.per_expert, 1)));
    }
    return 2 * highest;
  }

 private:
  struct Expert {
    double gain = 0;  // of its going whole
    std::int64_t bytes = 0;
  };

  Expert expert_at(std::size_t p, double price) const {
    const Pile& pile = pool_.piles[p];
    const auto [per_neuron, per_expert] =
        std::pair(options_.bytes.per_neuron, options_.bytes.per_expert);
    const double least = price * static_cast<double>(per_neuron);
    const auto worth =
        std::ranges::upper_bound(pile.values, least, std::greater<double>());
    std::int64_t kept = worth - pile.values.begin();
    if (kept < pile.size()) {
      kept = pile.floor + (kept - pile.floor) / pile.step * pile.step;
    }
    kept = std::clamp(kept, pile.floor, pile.cap);
    Expert expert;
    expert.bytes = per_expert + kept * per_neuron;
    const double all = sums_[p].back();
    expert.gain = all - sums_[p][kept] +
                  price * static_cast<double>(expert.bytes) -
                  options_.exchange_rate * all;
    const Pool::Place& place = pool_.places[p][0];
    if (is_condenser(options_, place.layer, place.expert)) {
      expert.gain = kNever;
    }
    return expert;
  }

  // One level goes after the other, as long as that gains.
  void choose_in_layer(
      const model::LayerConfig& layer,
      std::span<const Expert> experts,
      std::size_t first,
      Choice& choice) const {
    const auto groups = static_cast<std::size_t>(config_.router.groups);
    const std::size_t size = experts.size() / groups;
    const auto fewest =
        static_cast<std::size_t>(fewest_experts(config_.router, layer));
    std::vector<std::vector<std::size_t>> ranked(groups);
    for (std::size_t g = 0; g < groups; ++g) {
      ranked[g].resize(size);
      std::iota(ranked[g].begin(), ranked[g].end(), g * size);
      std::ranges::stable_sort(ranked[g], [&](std::size_t a, std::size_t b) {
        return experts[a].gain > experts[b].gain;
      });
    }
    for (std::size_t r = 0; r < size; ++r) {
      if ((size - r) * groups <= fewest) return;
      double gain = 0;
      for (const auto& group : ranked) gain += experts[group[r]].gain;
      if (!(gain > 0)) return;
      Level level;
      for (const auto& group : ranked) {
        level.piles.push_back(first + group[r]);
        level.bytes += experts[group[r]].bytes;
        choice.gone[level.piles.back()] = true;
      }
      choice.levels.push_back(std::move(level));
    }
  }

  const Pool& pool_;
  const model::ModelConfig& config_;
  const TrimOptions& options_;
  std::vector<std::vector<double>> sums_;  // of a pile's best k values
};

// The choice at the lowest price whose bytes fit.
Exchange::Choice cheapest_fit(const Exchange& exchange, std::int64_t capacity) {
  double low = 0;
  double high = exchange.highest();
  Exchange::Choice before = exchange.at(low);
  if (before.bytes <= capacity) return before;
  Exchange::Choice best = exchange.at(high);
  // 100 halvings are enough to separate any two scores.
  for (int i = 0; i < 100; ++i) {
    const double middle = low + (high - low) / 2;
    if (middle <= low || middle >= high) break;
    Exchange::Choice choice = exchange.at(middle);
    const bool fits = choice.bytes <= capacity;
    (fits ? high : low) = middle;
    (fits ? best : before) = std::move(choice);
  }
  // At one price many may go at once: as many come back as there is room for.
  for (auto level = best.levels.rbegin(); level != best.levels.rend();
       ++level) {
    const bool at_this_price = !before.gone[level->piles.front()];
    if (!at_this_price || best.bytes + level->bytes > capacity) continue;
    best.bytes += level->bytes;
    for (const std::size_t p : level->piles) best.gone[p] = false;
  }
  return best;
}

}  // namespace

std::int64_t mixed_cost(const Pool& pool, const ModelBytes& bytes) {
  std::int64_t cost = 0;
  for (const Pile& pile : pool.piles) {
    cost += bytes.per_expert + pile.size() * bytes.per_neuron;
  }
  return cost;
}

std::int64_t mixed_floor(
    const Pool& pool,
    const model::ModelConfig& config,
    const TrimOptions& options) {
  const Exchange exchange(pool, config, options);
  return exchange.at(exchange.highest()).bytes;
}

std::vector<std::int64_t> fill_mixed(
    Pool& pool,
    const model::ModelConfig& config,
    const TrimOptions& options,
    std::int64_t capacity) {
  const Exchange exchange(pool, config, options);
  const Exchange::Choice choice = cheapest_fit(exchange, capacity);
  pool.remove(choice.gone);
  const std::int64_t rows =
      static_cast<std::int64_t>(pool.piles.size()) * options.bytes.per_expert;
  return fill(
      pool.piles,
      {.capacity = (capacity - rows) / options.bytes.per_neuron,
       .nearest = options.keep.has_value()});
}

}  // namespace fettle::trim
