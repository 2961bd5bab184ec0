// SPDX-License-Identifier: Apache-2.0
// Watches a sweep and adds up how strongly the loss pulls at each neuron: the
// root of the sum, over the micro-batches seen, of the squared norm of the
// neuron's gradient in one micro-batch. When each micro-batch is one sequence
// the result doesn't depend on how sequences are batched.
#pragma once

#include <ATen/ATen.h>

#include <cstdint>
#include <vector>

#include "model/family/model_config.h"
#include "sweep/observer.h"
#include "sweep/sum_so_far.h"
#include "tune/sparse/selection.h"

namespace fettle::tune {

class NeuronScorer : public sweep::Observer {
 public:
  // Sums are kept on `device`.
  NeuronScorer(const model::ModelConfig& config, at::Device device);

  bool wants_expert_gradients() const override { return true; }
  void on_expert_gradient(
      std::int64_t layer, const model::ExpertGradView& view) override;

  void for_each_sum(
      sweep::Pass pass,
      std::int64_t layer,
      const sweep::SumVisitor& visit) override;
  void end_layer(
      sweep::Pass pass,
      std::int64_t layer,
      model::LayerWeights& weights) override;

  UnitScores scores() const;

 private:
  std::vector<std::vector<std::int64_t>> offsets_;  // [L][E + 1]
  sweep::SumSoFar before_;
  std::vector<at::Tensor> sums_;  // [L]: [S_l] fp64
};

}  // namespace fettle::tune
