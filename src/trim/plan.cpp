// SPDX-License-Identifier: Apache-2.0
#include "trim/plan.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <numeric>
#include <utility>

#include "core/bytes.h"
#include "core/error.h"
#include "io/checksum.h"
#include "trim/piles.h"

namespace fettle::trim {
namespace {

[[noreturn]] void refuse(const std::string& subject, const std::string& why) {
  throw UserError("trim", subject, why);
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
  if (options.min_width < 0 || options.max_width < 0) {
    refuse("min-width", "expected a number of neurons of at least 0");
  }
  if (options.max_width > 0 && options.max_width < options.min_width) {
    refuse("max-width", "expected at least min-width");
  }
  if (options.unit == Unit::kExpert &&
      (options.min_width > 0 || options.max_width > 0)) {
    refuse("min-width", "bounds the widths of experts; use unit neuron");
  }
}

// What the pools may keep: a share of each one's cost.
struct Allowance {
  double share = 1;
  std::int64_t fixed = 0;      // bytes that stay whatever the plan
  std::int64_t cost_size = 0;  // bytes of one unit of cost
};

Allowance allowance(
    const std::vector<Pool>& pools,
    const model::ModelConfig& config,
    const TrimOptions& options) {
  if (options.keep) return {*options.keep, 0, 0};
  Allowance result{1, options.bytes.fixed, 1};
  if (options.unit == Unit::kNeuron) {
    result.cost_size = options.bytes.per_neuron;
    for (const model::LayerConfig& layer : config.layers) {
      result.fixed += options.bytes.per_expert * layer.num_experts();
    }
  }
  std::int64_t cost = 0;
  for (const Pool& pool : pools) cost += pool.cost();
  const auto left = static_cast<double>(*options.budget - result.fixed);
  const auto whole = static_cast<double>(cost * result.cost_size);
  result.share = whole > 0 ? std::min(left / whole, 1.0) : 1.0;
  return result;
}

std::int64_t capacity(
    const Pool& pool, const Allowance& allowed, const TrimOptions& options) {
  const double share = allowed.share * static_cast<double>(pool.cost());
  // The small addend undoes rounding in the share, not more than that.
  return options.keep ? std::llround(share)
                      : static_cast<std::int64_t>(std::floor(share + 1e-6));
}

// The pool whose floors need the largest share of it.
struct Tightest {
  double share = 0;
  std::int64_t floor = 0;
  std::int64_t capacity = 0;
  std::string name = "the model";
};

Tightest find_tightest(
    const std::vector<Pool>& pools,
    const Allowance& allowed,
    const TrimOptions& options) {
  Tightest tightest;
  for (const Pool& pool : pools) {
    const std::int64_t floor = pool.floor_cost();
    if (floor == 0) continue;
    const double share =
        static_cast<double>(floor) / static_cast<double>(pool.cost());
    if (share <= tightest.share) continue;
    tightest = {share, floor, capacity(pool, allowed, options), pool.name};
  }
  return tightest;
}

// Throws, naming what would do, unless every pool has room for its floors.
void check_floors(
    const std::vector<Pool>& pools,
    const Allowance& allowed,
    const TrimOptions& options) {
  const Tightest tightest = find_tightest(pools, allowed, options);
  if (allowed.share >= 0 && tightest.floor <= tightest.capacity) return;
  const char* const need = options.unit == Unit::kExpert
                               ? "the experts that the router needs"
                               : "the smallest width of every expert";
  if (options.keep) {
    refuse(
        "keep",
        fmt::format(
            "{} of {} is too little for {}; the smallest is {:.4f}",
            *options.keep,
            tightest.name,
            need,
            std::ceil(tightest.share * 1e4) / 1e4));
  }
  std::int64_t cost = 0;
  for (const Pool& pool : pools) cost += pool.cost();
  // The small subtrahend undoes rounding in the product.
  const auto smallest =
      allowed.fixed + static_cast<std::int64_t>(std::ceil(
                          tightest.share * static_cast<double>(cost) *
                              static_cast<double>(allowed.cost_size) -
                          1e-6));
  refuse(
      "budget",
      fmt::format(
          "{} is too little for {} and all that can't be trimmed; the smallest "
          "is {} ({} bytes)",
          format_bytes(*options.budget),
          need,
          format_bytes(smallest),
          smallest));
}

std::vector<std::int64_t> all_neurons(std::int64_t width) {
  std::vector<std::int64_t> neurons(static_cast<std::size_t>(width));
  std::iota(neurons.begin(), neurons.end(), 0);
  return neurons;
}

std::vector<std::int64_t> first_sorted(const Pile& pile, std::int64_t count) {
  std::vector<std::int64_t> items(
      pile.order.begin(), pile.order.begin() + count);
  std::ranges::sort(items);
  return items;
}

void apply(
    const Pool& pool,
    std::span<const std::int64_t> kept,
    const model::ModelConfig& config,
    artifact::TrimPlan& plan) {
  for (std::size_t p = 0; p < pool.piles.size(); ++p) {
    const auto [layer, expert] = pool.places[p];
    std::vector<std::int64_t> items = first_sorted(pool.piles[p], kept[p]);
    std::vector<artifact::ExpertPlan>& experts = plan.layers[layer].experts;
    if (expert >= 0) {
      experts.push_back({expert, std::move(items)});
      continue;
    }
    for (const std::int64_t e : items) {
      experts.push_back(
          {e, all_neurons(config.layers[layer].expert_widths[e])});
    }
  }
}

}  // namespace

artifact::TrimPlan plan_trim(
    const artifact::ScoreFile& scores,
    const model::ModelConfig& config,
    const TrimOptions& options) {
  check_options(options);
  const std::vector<Pool> pools = options.unit == Unit::kNeuron
                                      ? neuron_pools(scores, config, options)
                                      : expert_pools(scores, config, options);
  const Allowance allowed = allowance(pools, config, options);
  check_floors(pools, allowed, options);
  artifact::TrimPlan plan;
  plan.model_fingerprint = scores.model_fingerprint;
  plan.options = options_json(options);
  for (const model::LayerConfig& layer : config.layers) {
    plan.layers.push_back({{}, layer.sparse ? layer.top_k : 0});
  }
  for (const Pool& pool : pools) {
    const auto kept = fill(
        pool.piles,
        {.capacity = capacity(pool, allowed, options),
         .nearest = options.keep.has_value()});
    apply(pool, kept, config, plan);
  }
  return plan;
}

Json options_json(const TrimOptions& options) {
  constexpr const char* kScopes[] = {"expert", "layer", "global"};
  constexpr const char* kUnits[] = {"neuron", "expert"};
  constexpr const char* kNormalise[] = {"none", "sqrt", "layer_mean"};
  Json json = {
      {"score", options.score},
      {"scope", kScopes[static_cast<int>(options.scope)]},
      {"unit", kUnits[static_cast<int>(options.unit)]},
      {"round", options.round},
      {"min_width", options.min_width},
      {"max_width", options.max_width},
      {"normalise", kNormalise[static_cast<int>(options.normalise)]}};
  if (options.keep) json["keep"] = *options.keep;
  if (options.budget) json["budget"] = *options.budget;
  return json;
}

void require_scores_of(
    const model::ModelReader& reader, const artifact::ScoreFile& scores) {
  const std::string found =
      io::fingerprint(reader.checkpoint(), reader.folder() / "config.json");
  if (found == scores.model_fingerprint) return;
  throw UserError(
      "trim",
      "scores",
      fmt::format(
          "expected scores of {} (fingerprint {}), found those of another "
          "model ({}); run fettle analyze on this one",
          reader.folder().string(),
          found,
          scores.model_fingerprint));
}

}  // namespace fettle::trim
