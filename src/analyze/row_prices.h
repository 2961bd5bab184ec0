// SPDX-License-Identifier: Apache-2.0
// Measures what errors in each matrix cost (artifact/row_prices.h) in a
// backward pass of targets that the model drew itself.
#pragma once

#include <map>
#include <vector>

#include "artifact/row_prices.h"
#include "model/family/model_config.h"
#include "sweep/observer.h"

namespace fettle::analyze {

class RowPriceObserver : public sweep::Observer {
 public:
  explicit RowPriceObserver(const model::ModelConfig& config);

  bool wants_expert_gradients() const override { return true; }
  bool wants_projection_gradients() const override { return true; }
  bool wants_global_gradients() const override { return true; }
  void begin_layer(
      sweep::Pass pass,
      std::int64_t layer,
      model::LayerWeights& weights) override;
  void on_output_gradient(std::int64_t, const at::Tensor& d_output) override;
  void on_expert_gradient(
      std::int64_t, const model::ExpertGradView& view) override;
  void on_projection_gradient(
      std::int64_t layer,
      model::Role role,
      const at::Tensor& x,
      const at::Tensor& dy) override;
  void end_layer(
      sweep::Pass pass,
      std::int64_t layer,
      model::LayerWeights& weights) override;
  void on_head_gradient(const sweep::HeadGradView& view) override;
  void on_embedding_gradient(
      const at::Tensor& ids, const at::Tensor& gradient) override;

  // What all passes came to; `tokens` is the number of scored positions.
  artifact::RowPrices prices(std::int64_t tokens) const;

 private:
  // Sums over the tokens of the layer in use.
  struct Sums {
    std::vector<at::Tensor> inputs;   // [E] of [2I]: gradients of gate and up
    std::vector<at::Tensor> outputs;  // [E] of [H]: of the unweighted output
    std::vector<at::Tensor> energy;   // [E] of [I]: (p h)^2
    std::vector<at::Tensor> weights;  // [E]: p^2
    at::Tensor d_output;              // [H]
    std::map<model::Role, at::Tensor> projections;  // [rows]
  };

  void finish_experts(std::int64_t layer, const model::LayerWeights& weights);
  void finish_others(std::int64_t layer);

  const model::ModelConfig& config_;
  Sums sums_;
  // Sums, not yet divided by the tokens.
  artifact::RowPrices prices_;
};

}  // namespace fettle::analyze
