// SPDX-License-Identifier: Apache-2.0
#include "sweep/tap_fanout.h"

namespace fettle::sweep {

void TapFanout::begin(Pass pass, std::span<Observer* const> observers) {
  pass_ = pass;
  observers_ = observers;
  wants_experts_ = false;
  wants_gradients_ = false;
  wants_projections_ = false;
  for (const Observer* observer : observers_) {
    const bool forward = pass_ == Pass::kForward;
    wants_experts_ |= forward && observer->wants_experts();
    wants_gradients_ |= !forward && observer->wants_expert_gradients();
    wants_projections_ |= observer->wants_projection_gradients();
  }
}

void TapFanout::on_routing(std::int64_t layer, const model::RoutingView& view) {
  if (pass_ != Pass::kForward) return;
  for (Observer* observer : observers_) observer->on_routing(layer, view);
}

void TapFanout::on_expert(std::int64_t layer, const model::ExpertView& view) {
  for (Observer* observer : observers_) {
    if (observer->wants_experts()) observer->on_expert(layer, view);
  }
}

void TapFanout::on_run_gradient(
    std::int64_t layer, const model::RunGradView& view) {
  for (Observer* observer : observers_) {
    if (observer->wants_expert_gradients()) {
      observer->on_run_gradient(layer, view);
    }
  }
}

void TapFanout::on_output_gradient(
    std::int64_t layer, const at::Tensor& d_output) {
  for (Observer* observer : observers_) {
    if (observer->wants_expert_gradients()) {
      observer->on_output_gradient(layer, d_output);
    }
  }
}

void TapFanout::on_projection(
    std::int64_t layer, model::Role role, const at::Tensor& x) {
  for (Observer* observer : observers_) {
    observer->on_projection(layer, role, x);
  }
}

void TapFanout::on_projection_gradient(
    std::int64_t layer,
    model::Role role,
    const at::Tensor& x,
    const at::Tensor& dy) {
  for (Observer* observer : observers_) {
    if (observer->wants_projection_gradients()) {
      observer->on_projection_gradient(layer, role, x, dy);
    }
  }
}

void TapFanout::on_router_gradient(
    std::int64_t layer, const at::Tensor& x, const at::Tensor& d_logits) {
  for (Observer* observer : observers_) {
    observer->on_router_gradient(layer, x, d_logits);
  }
}

}  // namespace fettle::sweep
