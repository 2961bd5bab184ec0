// SPDX-License-Identifier: Apache-2.0
#include "trim/allowance.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>

#include "core/bytes.h"
#include "core/error.h"

namespace fettle::trim {
namespace {

// What the pools may keep: a share of each one's cost.
struct Allowance {
  double share = 1;
  std::int64_t fixed = 0;      // bytes that stay whatever the plan
  std::int64_t cost_size = 0;  // bytes of one unit of cost
};

Allowance allowance(
    const std::vector<PoolNeed>& needs,
    const model::ModelConfig& config,
    const TrimOptions& options) {
  if (options.keep) return {*options.keep, 0, 0};
  Allowance result{1, options.bytes.fixed, 1};
  if (options.unit == TrimUnit::kNeuron) {
    result.cost_size = options.bytes.per_neuron;
    for (const model::LayerConfig& layer : config.layers) {
      result.fixed += options.bytes.per_expert * layer.num_experts();
    }
  }
  std::int64_t cost = 0;
  for (const PoolNeed& need : needs) cost += need.whole;
  const auto left = static_cast<double>(*options.budget - result.fixed);
  const auto whole = static_cast<double>(cost * result.cost_size);
  result.share = whole > 0 ? std::min(left / whole, 1.0) : 1.0;
  return result;
}

std::int64_t capacity(
    const PoolNeed& need,
    const Allowance& allowed,
    const TrimOptions& options) {
  const double share = allowed.share * static_cast<double>(need.whole);
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
    const std::vector<PoolNeed>& needs,
    const Allowance& allowed,
    const TrimOptions& options) {
  Tightest tightest;
  for (const PoolNeed& need : needs) {
    if (need.floor == 0) continue;
    const double share =
        static_cast<double>(need.floor) / static_cast<double>(need.whole);
    if (share <= tightest.share) continue;
    tightest = {
        share, need.floor, capacity(need, allowed, options), *need.name};
  }
  return tightest;
}

// Throws, naming what would do, unless every pool has room for its floors.
void check_floors(
    const std::vector<PoolNeed>& needs,
    const Allowance& allowed,
    const TrimOptions& options) {
  const Tightest tightest = find_tightest(needs, allowed, options);
  if (allowed.share >= 0 && tightest.floor <= tightest.capacity) return;
  const char* const floors = options.unit != TrimUnit::kNeuron
                                 ? "the experts that the router needs"
                                 : "the smallest width of every expert";
  if (options.keep) {
    throw UserError(
        "trim",
        "keep",
        fmt::format(
            "{} of {} is too little for {}; the smallest is {:.4f}",
            *options.keep,
            tightest.name,
            floors,
            std::ceil(tightest.share * 1e4) / 1e4));
  }
  std::int64_t cost = 0;
  for (const PoolNeed& need : needs) cost += need.whole;
  // The small subtrahend undoes rounding in the product.
  const auto smallest =
      allowed.fixed + static_cast<std::int64_t>(std::ceil(
                          tightest.share * static_cast<double>(cost) *
                              static_cast<double>(allowed.cost_size) -
                          1e-6));
  throw UserError(
      "trim",
      "budget",
      fmt::format(
          "{} is too little for {} and all that can't be trimmed; the smallest "
          "is {} ({} bytes)",
          format_bytes(*options.budget),
          floors,
          format_bytes(smallest),
          smallest));
}

}  // namespace

std::vector<std::int64_t> capacities(
    const std::vector<PoolNeed>& needs,
    const model::ModelConfig& config,
    const TrimOptions& options) {
  const Allowance allowed = allowance(needs, config, options);
  check_floors(needs, allowed, options);
  std::vector<std::int64_t> result;
  for (const PoolNeed& need : needs) {
    result.push_back(capacity(need, allowed, options));
  }
  return result;
}

}  // namespace fettle::trim
