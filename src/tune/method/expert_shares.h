// SPDX-License-Identifier: Apache-2.0
// How much of a layer's work each expert does on some data, and the fewest
// experts that do a given share of it.
// Source: Wang et al., "Let the Expert Stick to His Last" (ESFT), 2024, section
// 3.2: token selection ratio and average gate score. The gate score is divided
// by its sum over experts, so that a share means the same for families that do
// not renormalise their mixing weights.
#pragma once

#include <cstdint>
#include <vector>

#include "model/family/model_config.h"
#include "sweep/observer.h"
#include "sweep/sum_so_far.h"

namespace fettle::tune {

enum class ShareOf { kTokens, kGates };

// Watches a forward sweep.
class ExpertShares : public sweep::Observer {
 public:
  ExpertShares(const model::ModelConfig& config, ShareOf kind);
  void on_routing(std::int64_t layer, const model::RoutingView& view) override;
  void for_each_sum(
      sweep::Pass pass,
      std::int64_t layer,
      const sweep::SumVisitor& visit) override;
  void end_layer(
      sweep::Pass pass,
      std::int64_t layer,
      model::LayerWeights& weights) override;

  // By layer, then expert; sums to 1 in a layer with experts. Throws UserError
  // when no token was seen.
  std::vector<std::vector<double>> shares() const;

 private:
  ShareOf kind_;
  sweep::SumSoFar before_;
  std::vector<at::Tensor> sums_;  // [E] fp64 on the CPU
};

// The smallest set of experts whose shares add to at least `share`, ascending;
// of equal ones the lower number.
std::vector<std::int64_t> fewest_experts(
    const std::vector<double>& shares, double share);

}  // namespace fettle::tune
