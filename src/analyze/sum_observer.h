// SPDX-License-Identifier: Apache-2.0
// The part that all scores which sum over tokens share: sums opened and closed
// with each layer of one pass.
#pragma once

#include "analyze/layer_sums.h"
#include "analyze/score_method.h"

namespace fettle::analyze {

class SumObserver : public ScoreObserver {
 public:
  void begin_layer(
      sweep::Pass pass,
      std::int64_t layer,
      model::LayerWeights& weights) override {
    if (pass == pass_) sums_.begin(layer, weights.input_norm.device());
  }
  void end_layer(
      sweep::Pass pass, std::int64_t layer, model::LayerWeights&) override {
    if (pass == pass_) sums_.end(layer);
  }
  at::Tensor score(std::int64_t layer) const override {
    return sums_.total(layer).to(at::kFloat);
  }

 protected:
  struct Kind {
    Unit unit;
    sweep::Pass pass;
  };
  SumObserver(const ScoreContext& context, Kind kind)
      : sums_(context.config, kind.unit), pass_(kind.pass) {}

  LayerSums sums_;

 private:
  sweep::Pass pass_;
};

}  // namespace fettle::analyze
