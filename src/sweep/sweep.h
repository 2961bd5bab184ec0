// SPDX-License-Identifier: Apache-2.0
// The layer-major sweep: all micro-batches pass through a layer before the next
// layer is touched, so that each layer's weights are read once per pass,
// whatever the number of tokens. The result does not depend on the size of the
// micro-batches beyond rounding, and is the same bits from run to run.
#pragma once

#include <ATen/ATen.h>

#include <cstdint>
#include <functional>
#include <span>
#include <vector>

#include "core/progress.h"
#include "model/causal_lm.h"
#include "model/decoder_layer.h"
#include "model/packed_tokens.h"
#include "store/activation_store.h"
#include "sweep/observer.h"

namespace fettle::sweep {

struct SweepOptions {
  store::ActivationStoreOptions activations;
  // Told of every layer passed; null: silent.
  Reporter* reporter = nullptr;
};

class Sweep {
 public:
  // `model` must outlive the sweep; the batches are moved to its device.
  Sweep(
      model::CausalLm& model,
      const std::vector<model::PackedTokens>& batches,
      const SweepOptions& options);

  // Embeddings and all layers; the final hidden states are kept, and with
  // `keep_boundaries` every layer's input too, which backward() needs.
  struct ForwardOptions {
    bool keep_boundaries = false;
  };
  void forward(
      std::span<Observer* const> observers, const ForwardOptions& options);

  // Final hidden states of a micro-batch, before the final norm: [N, H].
  at::Tensor hidden(std::int64_t micro_batch) const;

  // Negative log-likelihood of every position, [N] fp32 on the CPU per
  // micro-batch, 0 where the target is -100.
  std::vector<at::Tensor> token_nll();

  // As token_nll, and keeps the gradient of `loss_scale` x (sum of the scored
  // NLLs) with respect to the final hidden states for backward().
  std::vector<at::Tensor> token_nll_with_gradient(double loss_scale);

  // All layers from the last to `first_layer`, each recomputed from its kept
  // input; consumes what forward and token_nll_with_gradient kept.
  void backward(
      std::span<Observer* const> observers, std::int64_t first_layer = 0);

 private:
  struct MicroBatch {
    model::PackedTokens tokens;
    model::RotaryTables rotary;
  };

  at::Tensor fetch(std::int64_t layer, std::int64_t micro_batch) const;
  model::LayerContext context(
      std::int64_t layer, std::int64_t micro_batch, model::MoeTap* tap) const;
  void backward_through(
      std::int64_t layer,
      std::int64_t micro_batch,
      const model::LayerWeights& weights,
      model::MoeTap& tap);

  model::CausalLm& model_;
  std::vector<MicroBatch> batches_;
  SweepOptions options_;
  // Key (l, m): the input of layer l; on the way back, its gradient.
  store::ActivationStore activations_;
  std::int64_t tokens_ = 0;
  bool boundaries_kept_ = false;
};

}  // namespace fettle::sweep
