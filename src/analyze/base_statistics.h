// SPDX-License-Identifier: Apache-2.0
// What every analysis keeps whatever the scores: mean activations, tokens per
// expert, and the entropy of the routers.
#pragma once

#include <vector>

#include "analyze/layer_sums.h"
#include "artifact/score_file.h"
#include "sweep/observer.h"

namespace fettle::analyze {

class BaseStatistics : public sweep::Observer {
 public:
  explicit BaseStatistics(const model::ModelConfig& config);

  bool wants_experts() const override { return true; }
  void begin_layer(
      sweep::Pass, std::int64_t layer, model::LayerWeights&) override;
  void end_layer(
      sweep::Pass, std::int64_t layer, model::LayerWeights&) override;
  void on_routing(std::int64_t layer, const model::RoutingView&) override;
  void on_expert(std::int64_t layer, const model::ExpertView&) override;

  // Fills widths, mean_h, tokens and router_entropy.
  artifact::LayerScores layer(std::int64_t layer) const;

 private:
  const model::ModelConfig& config_;
  LayerSums h_;
  LayerSums tokens_;
  std::vector<double> entropy_;       // [L] summed over tokens
  std::vector<std::int64_t> routed_;  // [L] tokens that met the router
};

}  // namespace fettle::analyze
