// SPDX-License-Identifier: Apache-2.0
// What a stage attaches to a sweep. A sweep visits a layer once: begin_layer,
// then every micro-batch, then end_layer. Forward calls of the taps
// (on_routing, on_expert) come in the forward pass only, gradient calls in the
// backward pass only, so that one forward and one backward sweep show an
// observer everything exactly once. What is outside the layers is shown
// between the two (the head) and after the backward pass (the embeddings).
#pragma once

#include <ATen/ATen.h>

#include <cstdint>
#include <functional>

#include "model/layers/layer_tap.h"
#include "model/weights/layer_weights.h"
#include "ranks/shards.h"

namespace fettle::sweep {

enum class Pass { kForward, kBackward };

// Some scored rows in the head, in the backward pass: the head's gradient is
// the sum of d_logitsᵀ normed over all of them.
struct HeadGradView {
  const at::Tensor& normed;        // [n, H], after the final norm
  const at::Tensor& d_logits;      // [n, V] fp32, of normed's products
  const at::Tensor& d_final_norm;  // [H] fp32: gradient of the norm's weight
};

using SumVisitor =
    std::function<void(at::Tensor& sum, ranks::Reduction reduction)>;

class Observer : public model::LayerTap {
 public:
  // May set requires_grad on weights in the backward pass (with keep_graphs: in
  // the forward pass); their .grad() then holds the sum over micro-batches at
  // the backward pass's end_layer, after which the sweep undoes it.
  virtual void begin_layer(Pass, std::int64_t /*layer*/, model::LayerWeights&) {
  }
  virtual void end_micro_batch(
      Pass, std::int64_t /*layer*/, std::int64_t /*micro_batch*/) {}
  // Visits what this pass has added up of the layer since begin_layer, in a
  // fixed order: the same shapes at every call and rank, contiguous. A sweep of
  // divided data takes the sums of each shard, leaving zeros, and puts those of
  // all shards of all ranks there before end_layer.
  virtual void for_each_sum(
      Pass, std::int64_t /*layer*/, const SumVisitor& /*visit*/) {}
  // The layer's sums and gradients are complete.
  virtual void end_layer(Pass, std::int64_t /*layer*/, model::LayerWeights&) {}

  // Whether the calls below are to come.
  virtual bool wants_global_gradients() const { return false; }
  virtual void on_head_gradient(const HeadGradView&) {}
  // Every row of the head was shown.
  virtual void end_head() {}
  // Where the backward pass went through all layers: the gradient [N, H] of the
  // embeddings of one micro-batch's tokens `ids` [N] int64.
  virtual void on_embedding_gradient(
      const at::Tensor& /*ids*/, const at::Tensor& /*gradient*/) {}
  virtual void end_embeddings() {}
  // As for_each_sum, of what these have added up: of the head on the model's
  // device, of the embeddings.
  virtual void for_each_head_sum(
      at::Device /*device*/, const SumVisitor& /*visit*/) {}
  virtual void for_each_embedding_sum(const SumVisitor& /*visit*/) {}
};

}  // namespace fettle::sweep
