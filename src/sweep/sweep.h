// SPDX-License-Identifier: Apache-2.0
// The layer-major sweep: all micro-batches pass through a layer before the next
// layer is touched, so that each layer's weights are read once per pass,
// whatever the number of tokens. The result does not depend on the size of the
// micro-batches beyond rounding, and is the same bits from run to run.
#pragma once

#include <ATen/ATen.h>

#include <cstdint>
#include <functional>
#include <memory>
#include <span>
#include <vector>

#include "core/progress.h"
#include "model/causal_lm.h"
#include "model/layers/decoder_layer.h"
#include "model/layers/token_batch.h"
#include "ranks/shards.h"
#include "store/activation_store.h"
#include "sweep/head.h"
#include "sweep/observer.h"
#include "sweep/tap_fanout.h"

namespace fettle::sweep {

struct SweepOptions {
  store::ActivationStoreOptions activations;
  // Told of every layer passed; null: silent.
  Reporter* reporter = nullptr;
  // Keep what autograd saved in the forward pass instead of recomputing it in
  // the backward pass. Needs the memory of all micro-batches in all layers, and
  // all layers at once; for a set of tokens that is small beside the budget. An
  // observer may then set requires_grad on weights in the forward pass only.
  bool keep_graphs = false;
  model::RouterTraining router = {};
  // How the data is divided, and where each own shard's micro-batches end;
  // observers must then show all that they add up (Observer::for_each_sum).
  ranks::Team team = {};
  std::vector<std::int64_t> shard_ends = {};
  // Tokens of the data before the own shards: noise depends on the place.
  std::int64_t first_token = 0;
};

class Sweep {
 public:
  // `model` must outlive the sweep; the batches are moved to its device.
  Sweep(
      model::CausalLm& model,
      const std::vector<model::TokenBatch>& batches,
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

  // Returns token_nll(), and keeps the gradient of `loss_scale` x (sum of the
  // scored NLLs) with respect to the final hidden states for backward(). Shows
  // `observers` the gradients of the head.
  std::vector<at::Tensor> token_nll_with_gradient(
      double loss_scale, std::span<Observer* const> observers = {});

  // The same for targets that the model draws itself by `seed`, whatever the
  // micro-batches.
  std::vector<at::Tensor> drawn_nll_with_gradient(
      std::uint64_t seed, std::span<Observer* const> observers = {});

  struct TokenLosses {
    std::vector<at::Tensor> nll, kl;  // as token_nll
  };
  // Like token_nll_with_gradient, for a mixture of losses (head.h). `teacher`
  // has the rows of all micro-batches, one after another, on the CPU.
  TokenLosses distill_with_gradient(
      const TeacherRows& teacher,
      const DistillScale& scale,
      std::span<Observer* const> observers = {});
  // The model's own rows for a student: of all micro-batches, on the CPU.
  TeacherRows teacher_rows(std::int64_t k) const;

  // All layers from the last to `first_layer`, each recomputed from its kept
  // input, and from 0 the embeddings; consumes what forward and
  // token_nll_with_gradient kept.
  void backward(
      std::span<Observer* const> observers, std::int64_t first_layer = 0);

 private:
  // Of each micro-batch, the NLL; its gradient is kept for backward().
  std::vector<at::Tensor> through_head(
      std::span<Observer* const> observers,
      const std::function<HeadResult(const HeadInput&)>& head);
  at::Tensor fetch(std::int64_t layer, std::int64_t micro_batch) const;
  model::LayerContext context(std::int64_t layer, std::int64_t micro_batch);
  // One micro-batch through one layer, kept as a graph where asked for.
  at::Tensor pass_layer(
      std::int64_t layer,
      std::int64_t micro_batch,
      const model::LayerWeights& weights,
      bool keep_graph);
  void backward_through(
      std::int64_t layer,
      std::int64_t micro_batch,
      const model::LayerWeights& weights);
  void show_embeddings(std::span<Observer* const> observers);
  std::shared_ptr<model::LayerWeights> weights_for_backward(
      std::int64_t layer, std::int64_t first_layer);

  struct Graph {
    at::Tensor x, y;
  };

  model::CausalLm& model_;
  std::vector<model::MicroBatch> batches_;
  SweepOptions options_;
  // Key (l, m): the input of layer l; in the backward pass, its gradient.
  store::ActivationStore activations_;
  TapFanout tap_;
  // With keep_graphs: by layer, then micro-batch.
  std::vector<std::vector<Graph>> graphs_;
  std::vector<std::shared_ptr<model::LayerWeights>> weights_;
  std::int64_t tokens_ = 0;
  bool boundaries_kept_ = false;
};

}  // namespace fettle::sweep
