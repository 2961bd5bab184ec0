// SPDX-License-Identifier: Apache-2.0
#include "trim/plan.h"

#include <fmt/format.h>

#include <algorithm>
#include <limits>
#include <numeric>
#include <utility>

#include "core/error.h"
#include "trim/allowance.h"
#include "trim/mixed.h"
#include "trim/piles.h"
#include "trim/stock_shape.h"

namespace fettle::trim {
namespace {

[[noreturn]] void refuse(const std::string& subject, const std::string& why) {
  throw UserError("trim", subject, why);
}

void check_widths(const TrimOptions& options) {
  const bool stock =
      options.widths == WidthRule::kUniform && options.unit == TrimUnit::kMixed;
  if (options.widths != WidthRule::kFree && options.unit != TrimUnit::kNeuron &&
      !stock) {
    refuse(
        "widths",
        "equal widths go with unit neuron, and uniform with unit mixed");
  }
  if (options.widths != WidthRule::kFree && options.scope == Scope::kExpert) {
    refuse(
        "widths",
        "scope expert keeps the same share of every expert already; use scope "
        "layer or global");
  }
  if (options.widths == WidthRule::kUniform &&
      options.scope != Scope::kGlobal) {
    refuse("widths", "one width for the model needs scope global");
  }
  if (options.unit == TrimUnit::kMixed && options.scope == Scope::kExpert) {
    refuse("scope", "whole experts compete at least within a layer");
  }
  if (!(options.price_tokens >= 0 && options.price_tokens <= 1)) {
    refuse(
        "price-tokens",
        fmt::format(
            "expected a share in [0, 1], found {}", options.price_tokens));
  }
  if (options.price_tokens > 0 &&
      (options.unit != TrimUnit::kNeuron ||
       options.widths != WidthRule::kFree || options.scope == Scope::kExpert)) {
    refuse(
        "price-tokens",
        "goes with unit neuron, free widths, and scope layer or global: only "
        "there do experts compete");
  }
  if (!(options.exchange_rate >= 0 &&
        options.exchange_rate < std::numeric_limits<double>::infinity())) {
    refuse("exchange-rate", "expected a finite number of at least 0");
  }
  if (options.condenser_width < 0) {
    refuse("condenser-width", "expected a number of neurons of at least 0");
  }
}

void check_options(const TrimOptions& options) {
  if (options.keep.has_value() == options.budget.has_value()) {
    refuse("keep", "expected either a share to keep or a budget of bytes");
  }
  if (options.keep && !(*options.keep > 0 && *options.keep <= 1)) {
    refuse(
        "keep",
        fmt::format("expected a share in (0, 1], found {}", *options.keep));
  }
  if (options.round < 1) {
    refuse("round", fmt::format("expected 1 or more, found {}", options.round));
  }
  if (options.block > 1 && options.unit != TrimUnit::kExpert &&
      options.round % options.block != 0) {
    refuse(
        "round",
        fmt::format(
            "expected a multiple of {}, since neurons go in blocks of so many, "
            "found {}",
            options.block,
            options.round));
  }
  if (options.min_width < 0 || options.max_width < 0) {
    refuse("min-width", "expected a number of neurons of at least 0");
  }
  if (options.max_width > 0 && options.max_width < options.min_width) {
    refuse("max-width", "expected at least min-width");
  }
  if (options.unit == TrimUnit::kExpert &&
      (options.min_width > 0 || options.max_width > 0)) {
    refuse("min-width", "bounds the widths of experts; use unit neuron");
  }
  check_widths(options);
}

// Where every value is 0, nothing distinguishes the neurons.
void check_values(const std::vector<Pool>& pools, const TrimOptions& options) {
  for (const Pool& pool : pools) {
    for (const Pile& pile : pool.piles) {
      if (pile.size() == 0) continue;
      if (pile.values.front() != 0 || pile.values.back() != 0) return;
    }
  }
  refuse(
      "score " + options.score,
      "is 0 everywhere: no calibration token reached an expert, or none had a "
      "gradient; run fettle analyze on other data");
}

std::vector<std::int64_t> all_neurons(std::int64_t width) {
  std::vector<std::int64_t> neurons(static_cast<std::size_t>(width));
  std::iota(neurons.begin(), neurons.end(), 0);
  return neurons;
}

// The first `count` of `order`, or all that it has, in ascending order.
std::vector<std::int64_t> first_sorted(
    const std::vector<std::uint32_t>& order, std::int64_t count) {
  count = std::min(count, static_cast<std::int64_t>(order.size()));
  std::vector<std::int64_t> items(order.begin(), order.begin() + count);
  std::ranges::sort(items);
  return items;
}

void apply(
    const Pool& pool,
    std::span<const std::int64_t> kept,
    const model::ModelConfig& config,
    artifact::TrimPlan& plan) {
  for (std::size_t p = 0; p < pool.piles.size(); ++p) {
    for (const Pool::Place& place : pool.places[p]) {
      std::vector<std::int64_t> items = first_sorted(place.order, kept[p]);
      auto& experts = plan.layers[place.layer].experts;
      if (place.expert >= 0) {
        experts.push_back({place.expert, std::move(items)});
        continue;
      }
      for (const std::int64_t e : items) {
        const auto& widths = config.layers[place.layer].expert_widths;
        experts.push_back({e, all_neurons(widths[e])});
      }
    }
  }
}

std::vector<PoolNeed> needs_of(
    const std::vector<Pool>& pools,
    const model::ModelConfig& config,
    const TrimOptions& options) {
  std::vector<PoolNeed> needs;
  for (const Pool& pool : pools) {
    if (options.unit != TrimUnit::kMixed) {
      needs.push_back({pool.cost(), pool.floor_cost(), &pool.name});
      continue;
    }
    const std::int64_t floor = options.widths == WidthRule::kUniform
                                   ? stock_floor(pool, config, options)
                                   : mixed_floor(pool, config, options);
    needs.push_back({mixed_cost(pool, options.bytes), floor, &pool.name});
  }
  return needs;
}

// How much each pile keeps; the pool loses piles that go whole.
std::vector<std::int64_t> fill_pool(
    Pool& pool,
    const model::ModelConfig& config,
    const TrimOptions& options,
    std::int64_t capacity) {
  if (options.unit == TrimUnit::kMixed) {
    return options.widths == WidthRule::kUniform
               ? fill_stock(pool, config, options, capacity)
               : fill_mixed(pool, config, options, capacity);
  }
  return fill(
      pool.piles, {.capacity = capacity, .nearest = options.keep.has_value()});
}

}  // namespace

artifact::TrimPlan plan_trim(
    const artifact::ScoreFile& scores,
    const model::ModelConfig& config,
    const TrimOptions& options) {
  check_options(options);
  std::vector<Pool> pools = options.unit == TrimUnit::kExpert
                                ? expert_pools(scores, config, options)
                                : neuron_pools(scores, config, options);
  check_values(pools, options);
  if (options.unit == TrimUnit::kNeuron) join_widths(pools, options.widths);
  const auto allowed =
      capacities(needs_of(pools, config, options), config, options);
  artifact::TrimPlan plan;
  plan.model_fingerprint = scores.model_fingerprint;
  plan.options = options_json(options);
  for (const model::LayerConfig& layer : config.layers) {
    plan.layers.push_back({{}, layer.sparse ? layer.top_k : 0});
  }
  for (std::size_t p = 0; p < pools.size(); ++p) {
    const auto kept = fill_pool(pools[p], config, options, allowed[p]);
    apply(pools[p], kept, config, plan);
  }
  return plan;
}

Json options_json(const TrimOptions& options) {
  constexpr const char* kScopes[] = {"expert", "layer", "global"};
  constexpr const char* kUnits[] = {"neuron", "expert", "mixed"};
  constexpr const char* kWidths[] = {"free", "per-layer", "uniform"};
  constexpr const char* kNormalise[] = {"none", "sqrt", "layer_mean"};
  Json json = {
      {"score", options.score},
      {"scope", kScopes[static_cast<int>(options.scope)]},
      {"unit", kUnits[static_cast<int>(options.unit)]},
      {"round", options.round},
      {"min_width", options.min_width},
      {"max_width", options.max_width},
      {"normalise", kNormalise[static_cast<int>(options.normalise)]}};
  if (options.block > 1) json["block"] = options.block;
  if (options.widths != WidthRule::kFree) {
    json["widths"] = kWidths[static_cast<int>(options.widths)];
  }
  if (options.unit == TrimUnit::kMixed) {
    json["exchange_rate"] = options.exchange_rate;
  }
  if (options.price_tokens > 0) json["price_tokens"] = options.price_tokens;
  if (!options.condensers.empty()) {
    json["condensers"] = options.condensers;
    json["condenser_width"] = options.condenser_width;
  }
  if (options.keep) json["keep"] = *options.keep;
  if (options.budget) json["budget"] = *options.budget;
  return json;
}

void check_trim_options(const TrimOptions& options) { check_options(options); }

std::string default_score(const artifact::ScoreFile& scores) {
  return default_score(scores.all_scores());
}

std::string default_score(const std::vector<std::string>& found) {
  const std::string best = TrimOptions{}.score;
  if (std::ranges::count(found, best) > 0) return best;
  if (found.size() == 1) return found.front();
  refuse(
      "score",
      fmt::format(
          "expected {} in the scores, the default, found {}; name one of them "
          "with --score",
          best,
          found.empty() ? "none" : fmt::format("{}", fmt::join(found, ", "))));
}

void require_scores_of(
    const model::ModelReader& reader, const artifact::ScoreFile& scores) {
  const std::string found = reader.fingerprint();
  if (found == scores.model_fingerprint) return;
  refuse(
      "scores",
      fmt::format(
          "expected scores of {} (fingerprint {}), found those of another "
          "model ({}); run fettle analyze on this one",
          reader.folder().string(),
          found,
          scores.model_fingerprint));
}

void require_plan_of(
    const model::ModelReader& reader, const artifact::TrimPlan& plan) {
  const std::string found = reader.fingerprint();
  if (found != plan.model_fingerprint) {
    refuse(
        "plan",
        fmt::format(
            "expected a plan of {} (fingerprint {}), found one made of another "
            "model's scores ({}); plan again with this one's",
            reader.folder().string(),
            found,
            plan.model_fingerprint));
  }
  plan.check_against(reader.config());
}

}  // namespace fettle::trim
