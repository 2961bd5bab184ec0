// SPDX-License-Identifier: Apache-2.0
// What a stage attaches to a sweep. A sweep visits a layer once: begin_layer,
// then every micro-batch, then end_layer. Forward calls of the taps
// (on_routing, on_expert) come in the forward pass only, gradient calls in the
// backward pass only, so that one forward and one backward sweep show an
// observer everything exactly once.
#pragma once

#include <cstdint>

#include "model/layer_weights.h"
#include "model/moe_tap.h"

namespace fettle::sweep {

enum class Pass { kForward, kBackward };

class Observer : public model::MoeTap {
 public:
  // May set requires_grad on weights in the backward pass (with keep_graphs: in
  // the forward pass); their .grad() then holds the sum over micro-batches at
  // the backward pass's end_layer, after which the sweep undoes it.
  virtual void begin_layer(Pass, std::int64_t /*layer*/, model::LayerWeights&) {
  }
  virtual void end_micro_batch(
      Pass, std::int64_t /*layer*/, std::int64_t /*micro_batch*/) {}
  // The layer's sums and gradients are complete.
  virtual void end_layer(Pass, std::int64_t /*layer*/, model::LayerWeights&) {}
};

}  // namespace fettle::sweep
