// SPDX-License-Identifier: Apache-2.0
// The part that all scores share: named sums, opened and closed with each layer
// of one pass.
#pragma once

#include <map>
#include <string>

#include "analyze/layer_sums.h"
#include "analyze/score_method.h"

namespace fettle::analyze {

class SumObserver : public ScoreObserver {
 public:
  void begin_layer(
      sweep::Pass pass,
      std::int64_t layer,
      model::LayerWeights& weights) override;
  void for_each_sum(
      sweep::Pass pass,
      std::int64_t layer,
      const sweep::SumVisitor& visit) override;
  void end_layer(
      sweep::Pass pass, std::int64_t layer, model::LayerWeights&) override;
  Sums sums(std::int64_t layer) const override;
  void restore(std::int64_t layer, const Sums& sums) override;

 protected:
  SumObserver(const ScoreContext& context, sweep::Pass pass)
      : config_(context.config), pass_(pass) {}

  // A sum of that name; valid as long as the observer.
  LayerSums& keep(const std::string& name, LayerSums::Kind kind = {});

  sweep::Pass pass() const { return pass_; }
  const model::ModelConfig& config() const { return config_; }

 private:
  const model::ModelConfig& config_;
  sweep::Pass pass_;
  std::map<std::string, LayerSums> sums_;
};

template <typename Observer>
std::unique_ptr<ScoreObserver> make_observer(const ScoreContext& context) {
  return std::make_unique<Observer>(context);
}

// The score that is a sum itself.
at::Tensor plain_sum(const Sums& sums, const ExpertWidths&);

}  // namespace fettle::analyze
