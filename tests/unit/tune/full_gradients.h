// SPDX-License-Identifier: Apache-2.0
// The gradients of whole layers by autograd, to compare parts with.
#pragma once

#include <ATen/ATen.h>

#include <map>
#include <vector>

#include "sweep/observer.h"
#include "sweep/sweep.h"

namespace fettle::tune::testing {

class FullGradients : public sweep::Observer {
 public:
  void begin_layer(
      sweep::Pass pass,
      std::int64_t layer,
      model::LayerWeights& weights) override;
  void end_layer(
      sweep::Pass pass,
      std::int64_t layer,
      model::LayerWeights& weights) override;

  std::map<std::int64_t, at::Tensor> gate_up, down, router;  // by layer
};

// Forward, head with the loss summed over tokens, backward down to a layer.
void run_backward(
    model::CausalLm& model,
    const std::vector<model::TokenBatch>& batches,
    const std::vector<sweep::Observer*>& observers,
    std::int64_t first_layer = 1);

}  // namespace fettle::tune::testing
