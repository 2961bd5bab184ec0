// SPDX-License-Identifier: Apache-2.0
// Shows the inside of layers to the observers of the pass in progress, and to
// each pass only what belongs to it: a layer's forward that the backward pass
// recomputes is not shown again.
#pragma once

#include <span>

#include "sweep/observer.h"

namespace fettle::sweep {

class TapFanout : public model::LayerTap {
 public:
  // Whom to show what comes next.
  void begin(Pass pass, std::span<Observer* const> observers);

  bool wants_experts() const override { return wants_experts_; }
  bool wants_expert_gradients() const override { return wants_gradients_; }
  bool wants_projection_gradients() const override {
    return wants_projections_;
  }
  void on_routing(std::int64_t layer, const model::RoutingView& view) override;
  void on_expert(std::int64_t layer, const model::ExpertView& view) override;
  void on_run_gradient(
      std::int64_t layer, const model::RunGradView& view) override;
  void on_output_gradient(
      std::int64_t layer, const at::Tensor& d_output) override;
  void on_projection(
      std::int64_t layer, model::Role role, const at::Tensor& x) override;
  void on_projection_gradient(
      std::int64_t layer,
      model::Role role,
      const at::Tensor& x,
      const at::Tensor& dy) override;
  void on_router_gradient(
      std::int64_t layer,
      const at::Tensor& x,
      const at::Tensor& d_logits) override;

 private:
  Pass pass_ = Pass::kForward;
  std::span<Observer* const> observers_;
  bool wants_experts_ = false;
  bool wants_gradients_ = false;
  bool wants_projections_ = false;
};

}  // namespace fettle::sweep
