// SPDX-License-Identifier: Apache-2.0
#include "trim/piles.h"

#include <fmt/format.h>

#include <algorithm>
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

Pile neuron_pile(
    std::span<const float> scores,
    std::span<const double> values,
    const TrimOptions& options) {
  Pile pile;
  pile.order = falling_order(scores);
  pile.values.reserve(values.size());
  for (const std::uint32_t k : pile.order) pile.values.push_back(values[k]);
  pile.step = options.round;
  set_levels(pile, options.min_width, options.max_width);
  return pile;
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

// Experts that a layer's router cannot do without.
std::int64_t fewest_experts(
    const model::RouterConfig& router, const model::LayerConfig& layer) {
  if (router.groups <= 1) return std::max<std::int64_t>(layer.top_k, 1);
  const std::int64_t chosen = std::max<std::int64_t>(router.topk_groups, 1);
  std::int64_t per_group = (layer.top_k + chosen - 1) / chosen;
  if (router.group_score == model::GroupScore::kTopTwoSum) {
    per_group = std::max<std::int64_t>(per_group, 2);
  }
  return per_group * router.groups;
}

Pile expert_pile(
    const LayerValues& layer_values,
    const model::RouterConfig& router,
    const model::LayerConfig& layer,
    const TrimOptions& options) {
  Pile pile;
  pile.order = grouped_order(layer_values.scores, router.groups);
  pile.step = std::lcm(options.round, router.groups);
  for (const std::uint32_t e : pile.order) {
    pile.values.push_back(layer_values.values[e]);
    if (options.budget) {
      pile.costs.push_back(
          options.bytes.per_expert +
          layer.expert_widths[e] * options.bytes.per_neuron);
    }
  }
  set_levels(pile, fewest_experts(router, layer), 0);
  return pile;
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

std::vector<Pool> neuron_pools(
    const artifact::ScoreFile& scores,
    const model::ModelConfig& config,
    const TrimOptions& options) {
  check_shape(scores, config);
  std::vector<Pool> pools;
  if (options.scope == Scope::kGlobal) pools.push_back({{}, {}, "the model"});
  for (std::int64_t l = 0; l < config.num_layers(); ++l) {
    const auto& widths = config.layers[l].expert_widths;
    if (widths.empty()) continue;
    if (options.scope == Scope::kLayer) {
      pools.push_back({{}, {}, fmt::format("layer {}", l)});
    }
    const LayerValues layer = neuron_values(scores, l, options);
    std::size_t begin = 0;
    for (std::size_t e = 0; e < widths.size(); ++e) {
      if (options.scope == Scope::kExpert) {
        pools.push_back({{}, {}, fmt::format("layer {}, expert {}", l, e)});
      }
      const auto width = static_cast<std::size_t>(widths[e]);
      pools.back().piles.push_back(neuron_pile(
          std::span(layer.scores).subspan(begin, width),
          std::span(layer.values).subspan(begin, width),
          options));
      pools.back().places.push_back({l, static_cast<std::int64_t>(e)});
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
    pools.back().piles.push_back(expert_pile(
        expert_values(scores, l, options),
        config.router,
        config.layers[l],
        options));
    pools.back().places.push_back({l, -1});
  }
  return pools;
}

}  // namespace fettle::trim
