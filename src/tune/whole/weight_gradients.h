// SPDX-License-Identifier: Apache-2.0
// Gradients of whole weights of one layer, each from where the backward sweep
// shows it most cheaply: the router's from its logits, an expert's from the
// expert's own tap, all others from autograd. No expert that the tokens left
// alone costs anything.
#pragma once

#include <ATen/ATen.h>

#include <cstdint>
#include <vector>

#include "model/family/weight_table.h"
#include "model/layers/layer_tap.h"
#include "model/weights/layer_weights.h"
#include "sweep/observer.h"

namespace fettle::tune {

// Weight `id` in the orientation that layers hold it in: as weight_view, but
// down projections as [I, H].
at::Tensor packed_view(
    const model::LayerWeights& weights, const model::WeightId& id);

class WeightGradients {
 public:
  // Weights of one layer, in any order.
  explicit WeightGradients(std::vector<model::WeightId> ids);

  // Call these from an observer's functions of the same names. Calls for
  // different experts may come at the same time.
  void begin_layer(sweep::Pass pass, model::LayerWeights& weights);
  void on_expert_gradient(const model::ExpertGradView& view);
  void on_router_gradient(const at::Tensor& x, const at::Tensor& d_logits);
  void end_layer(sweep::Pass pass);

  // As an observer's, in a backward pass. Also shows which weights have a
  // gradient at all.
  void for_each_sum(const sweep::SumVisitor& visit);
  // The same for the owner of the gradients: has them hold all that was added
  // up until now.
  void collect_shard();

  const std::vector<model::WeightId>& ids() const { return ids_; }
  // The i-th weight's gradient since the last begin_layer of a backward pass,
  // fp32 on the weight's device, like packed_view; undefined before, and for an
  // expert that no token chose.
  at::Tensor& operator[](std::size_t i) { return gradients_[i]; }
  const at::Tensor& operator[](std::size_t i) const { return gradients_[i]; }
  double norm_squared() const;
  void clear();

 private:
  void see(std::int64_t place);
  void collect();

  // Positions of an expert's weights in ids_, -1 where not asked for.
  struct ExpertPlaces {
    std::int64_t gate = -1, up = -1, down = -1;
    std::int64_t gate_bias = -1, up_bias = -1;
  };

  std::vector<model::WeightId> ids_;
  std::vector<at::Tensor> gradients_;
  std::vector<ExpertPlaces> experts_;
  std::int64_t router_ = -1;
  // In a backward pass: of the layer in progress.
  const model::LayerWeights* weights_ = nullptr;
  bool adds_up_ = false;  // for_each_sum was called
  at::Tensor seen_;       // uint8 by weight: whether a gradient came
};

}  // namespace fettle::tune
