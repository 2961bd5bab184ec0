// SPDX-License-Identifier: Apache-2.0
// What every analysis keeps whatever the scores: mean activations, tokens per
// expert, and the entropy of the routers.
#pragma once

#include "analyze/sum_observer.h"

namespace fettle::analyze {

class BaseStatistics : public SumObserver {
 public:
  explicit BaseStatistics(const ScoreContext& context)
      : SumObserver(context, sweep::Pass::kForward) {}

  bool wants_experts() const override { return true; }
  void on_routing(std::int64_t layer, const model::RoutingView&) override;
  void on_expert(std::int64_t layer, const model::ExpertView&) override;

 private:
  LayerSums& h_ = keep("h");
  LayerSums& tokens_ = keep("tokens", {.unit = Unit::kExpert});
  LayerSums& entropy_ = keep("entropy", {.unit = Unit::kLayer});
  LayerSums& routed_ = keep("routed", {.unit = Unit::kLayer});
};

// Fills mean_h, tokens and router_entropy from a sparse layer's sums.
void finish_base(const Sums& sums, artifact::LayerScores& layer);

}  // namespace fettle::analyze
