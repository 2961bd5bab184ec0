// SPDX-License-Identifier: Apache-2.0
#include "full_gradients.h"

namespace fettle::tune::testing {

void FullGradients::begin_layer(
    sweep::Pass pass, std::int64_t, model::LayerWeights& weights) {
  if (pass != sweep::Pass::kBackward || !weights.router.defined()) return;
  weights.experts.gate_up.set_requires_grad(true);
  weights.experts.down.set_requires_grad(true);
  weights.router.set_requires_grad(true);
}

void FullGradients::end_layer(
    sweep::Pass pass, std::int64_t layer, model::LayerWeights& weights) {
  if (pass != sweep::Pass::kBackward || !weights.router.defined()) return;
  const auto take = [](at::Tensor& weight) {
    at::Tensor gradient = weight.grad().clone();
    weight.mutable_grad().reset();
    weight.set_requires_grad(false);
    return gradient;
  };
  gate_up[layer] = take(weights.experts.gate_up);
  down[layer] = take(weights.experts.down);
  router[layer] = take(weights.router);
}

void run_backward(
    model::CausalLm& model,
    const std::vector<model::TokenBatch>& batches,
    const std::vector<sweep::Observer*>& observers,
    std::int64_t first_layer) {
  sweep::Sweep sweep(model, batches, {});
  sweep.forward({}, {.keep_boundaries = true});
  sweep.token_nll_with_gradient(1.0, observers);
  sweep.backward(observers, first_layer);
}

}  // namespace fettle::tune::testing
