// SPDX-License-Identifier: Apache-2.0
#include "model/family/config_checks.h"

#include <fmt/format.h>

#include <algorithm>
#include <numeric>
#include <string_view>
#include <vector>

#include "core/error.h"
#include "model/family/weight_table.h"

namespace fettle::model {
namespace {

// Bounds that no real model comes near; below them no product overflows.
constexpr double kMaxTensor = 1e12;
constexpr double kMaxModel = 1e15;
constexpr std::int64_t kMaxAllExperts = std::int64_t{1} << 20;

class Checker {
 public:
  Checker(const ModelConfig& config, const std::string& subject)
      : config_(config), subject_(subject) {}

  void run() const {
    std::int64_t experts = 0;
    for (const LayerConfig& layer : config_.layers) {
      experts += layer.num_experts();
      if (layer.sparse) check_routing(layer);
    }
    if (experts > kMaxAllExperts) {
      fail(fmt::format("{} experts in all; no such model exists", experts));
    }
    check_sizes();
  }

 private:
  [[noreturn]] void fail(std::string_view message) const {
    throw UserError("model", subject_, message);
  }

  // Experts that a token surely reaches: condensers, and the others in the
  // groups that have fewest of them.
  std::int64_t reachable(const LayerConfig& layer) const {
    const RouterConfig& router = config_.router;
    const std::int64_t size = layer.num_experts() / router.groups;
    std::vector<std::int64_t> others(router.groups, size);
    for (const std::int64_t e : layer.condensers) --others[e / size];
    std::ranges::sort(others);
    return std::accumulate(
        others.begin(),
        others.begin() + router.topk_groups,
        static_cast<std::int64_t>(layer.condensers.size()));
  }

  void check_routing(const LayerConfig& layer) const {
    const RouterConfig& router = config_.router;
    if (layer.num_experts() % router.groups != 0) {
      fail(fmt::format(
          "'n_group' is {}, which does not divide a layer's {} experts",
          router.groups,
          layer.num_experts()));
    }
    if (router.groups > 1 && router.group_score == GroupScore::kTopTwoSum &&
        layer.num_experts() < 2 * router.groups) {
      fail(fmt::format(
          "'n_group' is {} for a layer's {} experts; a group is chosen by its "
          "two best and needs as many",
          router.groups,
          layer.num_experts()));
    }
    const std::int64_t eligible = reachable(layer);
    if (layer.top_k > eligible) {
      fail(fmt::format(
          "'num_experts_per_tok' is {}, but a token can reach only {} experts",
          layer.top_k,
          eligible));
    }
  }

  // In floating point, where nothing overflows.
  void check_sizes() const {
    double total = 0.0;
    const auto add = [&](const WeightId& id) {
      double numel = 1.0;
      for (const std::int64_t side : weight_shape(config_, id)) {
        numel *= static_cast<double>(side);
      }
      if (numel > kMaxTensor) {
        fail(fmt::format(
            "{} would have {:.3g} elements; no such model exists",
            weight_name(config_, id),
            numel));
      }
      total += numel;
    };
    for (const WeightId& id : model_weights(config_)) add(id);
    if (total > kMaxModel) {
      fail(fmt::format("{:.3g} parameters; no such model exists", total));
    }
  }

  const ModelConfig& config_;
  const std::string& subject_;
};

}  // namespace

void check_config(const ModelConfig& config, const std::string& subject) {
  Checker(config, subject).run();
}

}  // namespace fettle::model
