// SPDX-License-Identifier: Apache-2.0
#include "trim/piles.h"

#include <fmt/format.h>

#include <algorithm>
#include <limits>
#include <numeric>
#include <utility>

#include "core/error.h"
#include "trim/layer_values.h"

namespace fettle::trim {
namespace {

std::int64_t round_up(std::int64_t value, std::int64_t step) {
  return (value + step - 1) / step * step;
}

void set_levels(Pile& pile, std::int64_t fewest, std::int64_t most) {
  pile.floor = std::min(round_up(fewest, pile.step), pile.size());
  pile.cap = pile.size();
  if (most > 0 && most < pile.size()) pile.cap = most / pile.step * pile.step;
  pile.cap = std::max(pile.cap, pile.floor);
}

void add_neuron_pile(
    Pool& pool,
    Pool::Place place,
    std::span<const float> scores,
    std::span<const double> values,
    const TrimOptions& options) {
  place.order = falling_order(scores);
  Pile pile;
  pile.values.reserve(values.size());
  for (const std::uint32_t k : place.order) pile.values.push_back(values[k]);
  pile.step = options.round;
  const std::int64_t fewest =
      is_condenser(options, place.layer, place.expert)
          ? std::max(options.min_width, options.condenser_width)
          : options.min_width;
  set_levels(pile, fewest, options.max_width);
  pool.piles.push_back(std::move(pile));
  pool.places.push_back({std::move(place)});
}

// The experts of a grouped router in an order of which any multiple of the
// number of groups takes equally many from each: the best of every group, then
// the second best of every group, and so on.
std::vector<std::uint32_t> grouped_order(
    std::span<const float> scores, std::int64_t groups) {
  const std::size_t size = scores.size() / static_cast<std::size_t>(groups);
  std::vector<std::uint32_t> order(scores.size());
  for (std::size_t g = 0; g < static_cast<std::size_t>(groups); ++g) {
    const auto ranked = falling_order(scores.subspan(g * size, size));
    for (std::size_t r = 0; r < size; ++r) {
      order[r * static_cast<std::size_t>(groups) + g] =
          static_cast<std::uint32_t>(g * size) + ranked[r];
    }
  }
  return order;
}

void add_expert_pile(
    Pool& pool,
    std::int64_t l,
    LayerValues values,
    const model::ModelConfig& config,
    const TrimOptions& options) {
  const model::LayerConfig& layer = config.layers[l];
  const auto& router = config.router;
  const auto experts = static_cast<std::int64_t>(values.scores.size());
  const std::int64_t group = experts / router.groups;
  std::vector<std::int64_t> spared(static_cast<std::size_t>(router.groups), 0);
  for (std::int64_t e = 0; e < experts; ++e) {
    if (!is_condenser(options, l, e)) continue;
    values.scores[e] = std::numeric_limits<float>::infinity();
    values.values[e] = std::numeric_limits<double>::infinity();
    ++spared[e / group];
  }
  Pool::Place place{l, -1, grouped_order(values.scores, router.groups)};
  Pile pile;
  pile.step = std::lcm(options.round, router.groups);
  for (const std::uint32_t e : place.order) {
    pile.values.push_back(values.values[e]);
    if (options.budget) {
      pile.costs.push_back(
          options.bytes.per_expert +
          layer.expert_widths[e] * options.bytes.per_neuron);
    }
  }
  const std::int64_t fewest = std::max(
      fewest_experts(router, layer),
      *std::ranges::max_element(spared) * router.groups);
  set_levels(pile, fewest, 0);
  pool.piles.push_back(std::move(pile));
  pool.places.push_back({std::move(place)});
}

void check_shape(
    const artifact::ScoreFile& scores, const model::ModelConfig& config) {
  bool same = scores.layers.size() == config.layers.size();
  for (std::size_t l = 0; same && l < config.layers.size(); ++l) {
    same = scores.layers[l].widths == config.layers[l].expert_widths;
  }
  if (same) return;
  throw UserError(
      "trim",
      "scores",
      "their layers, experts or widths are not the model's; run fettle analyze "
      "on this model");
}

}  // namespace

std::int64_t fewest_experts(
    const model::RouterConfig& router, const model::LayerConfig& layer) {
  const std::int64_t chosen = std::max<std::int64_t>(router.topk_groups, 1);
  std::int64_t per_group = (layer.top_k + chosen - 1) / chosen;
  if (router.group_score == model::GroupScore::kTopTwoSum) {
    per_group = std::max<std::int64_t>(per_group, 2);
  }
  return per_group * router.groups;
}

bool is_condenser(
    const TrimOptions& options, std::int64_t layer, std::int64_t expert) {
  const auto l = static_cast<std::size_t>(layer);
  return l < options.condensers.size() &&
         std::ranges::binary_search(options.condensers[l], expert);
}

std::int64_t Pool::cost() const {
  std::int64_t sum = 0;
  for (const Pile& pile : piles) sum += pile.cost(0, pile.size());
  return sum;
}

std::int64_t Pool::floor_cost() const {
  std::int64_t sum = 0;
  for (const Pile& pile : piles) sum += pile.cost(0, pile.floor);
  return sum;
}

void Pool::remove(const std::vector<bool>& gone) {
  Pool left{{}, {}, name};
  for (std::size_t p = 0; p < piles.size(); ++p) {
    if (gone[p]) continue;
    left.piles.push_back(std::move(piles[p]));
    left.places.push_back(std::move(places[p]));
  }
  *this = std::move(left);
}

namespace {

// What the neurons of each expert cost by TrimOptions::price_tokens, [L][E].
std::vector<std::vector<double>> token_costs(
    const artifact::ScoreFile& scores, double price) {
  double neurons = 0;
  double passes = 0;
  for (const artifact::LayerScores& layer : scores.layers) {
    for (std::size_t e = 0; e < layer.widths.size(); ++e) {
      const auto width = static_cast<double>(layer.widths[e]);
      neurons += width;
      passes +=
          width * layer.tokens[static_cast<std::int64_t>(e)].item<double>();
    }
  }
  std::vector<std::vector<double>> costs;
  for (const artifact::LayerScores& layer : scores.layers) {
    std::vector<double>& row = costs.emplace_back();
    for (std::size_t e = 0; e < layer.widths.size(); ++e) {
      const double tokens =
          layer.tokens[static_cast<std::int64_t>(e)].item<double>();
      const double products = passes > 0 ? tokens * neurons / passes : 1;
      // What no token passes is not free: it takes a little of a product.
      row.push_back(1 - price + price * std::max(products, 1e-3));
    }
  }
  return costs;
}

}  // namespace

std::vector<Pool> neuron_pools(
    const artifact::ScoreFile& scores,
    const model::ModelConfig& config,
    const TrimOptions& options) {
  check_shape(scores, config);
  const auto costs = token_costs(scores, options.price_tokens);
  std::vector<Pool> pools;
  if (options.scope == Scope::kGlobal) pools.push_back({{}, {}, "the model"});
  for (std::int64_t l = 0; l < config.num_layers(); ++l) {
    const auto& widths = config.layers[l].expert_widths;
    if (widths.empty()) continue;
    if (options.scope == Scope::kLayer) {
      pools.push_back({{}, {}, fmt::format("layer {}", l)});
    }
    LayerValues layer = neuron_values(scores, l, options);
    std::size_t begin = 0;
    for (std::size_t e = 0; e < widths.size(); ++e) {
      if (options.scope == Scope::kExpert) {
        pools.push_back({{}, {}, fmt::format("layer {}, expert {}", l, e)});
      }
      const auto width = static_cast<std::size_t>(widths[e]);
      for (std::size_t k = begin; k < begin + width; ++k) {
        layer.values[k] /= costs[l][e];
      }
      add_neuron_pile(
          pools.back(),
          {l, static_cast<std::int64_t>(e), {}},
          std::span(layer.scores).subspan(begin, width),
          std::span(layer.values).subspan(begin, width),
          options);
      begin += width;
    }
  }
  return pools;
}

std::vector<Pool> expert_pools(
    const artifact::ScoreFile& scores,
    const model::ModelConfig& config,
    const TrimOptions& options) {
  check_shape(scores, config);
  std::vector<Pool> pools;
  if (options.scope == Scope::kGlobal) pools.push_back({{}, {}, "the model"});
  for (std::int64_t l = 0; l < config.num_layers(); ++l) {
    if (!config.layers[l].sparse) continue;
    if (options.scope != Scope::kGlobal) {
      pools.push_back({{}, {}, fmt::format("layer {}", l)});
    }
    add_expert_pile(
        pools.back(), l, expert_values(scores, l, options), config, options);
  }
  return pools;
}

void join_widths(std::vector<Pool>& pools, WidthRule widths) {
  if (widths == WidthRule::kFree) return;
  for (Pool& pool : pools) {
    Pool joined{{}, {}, pool.name};
    std::size_t first = 0;
    for (std::size_t p = 1; p <= pool.piles.size(); ++p) {
      const bool same =
          p < pool.piles.size() &&
          (widths == WidthRule::kUniform ||
           pool.places[p][0].layer == pool.places[first][0].layer);
      if (same) continue;
      joined.piles.push_back(
          in_step(std::span(pool.piles).subspan(first, p - first)));
      joined.places.emplace_back();
      for (; first < p; ++first) {
        joined.places.back().push_back(std::move(pool.places[first][0]));
      }
    }
    pool = std::move(joined);
  }
}

}  // namespace fettle::trim
