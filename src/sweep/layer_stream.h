// SPDX-License-Identifier: Apache-2.0
// Micro-batches on their way through the layers, one layer at a time: for a
// stage that changes a layer by what it sees there, and goes on to the next
// layer with what the changed one makes.
#pragma once

#include <ATen/ATen.h>

#include <cstdint>
#include <functional>
#include <vector>

#include "model/causal_lm.h"
#include "model/layers/decoder_layer.h"
#include "model/layers/token_batch.h"
#include "store/activation_store.h"
#include "sweep/micro_batches.h"
#include "sweep/shard_sums.h"

namespace fettle::sweep {

class LayerStream {
 public:
  // Begins at the embeddings. `model` must outlive the stream; the batches are
  // moved to its device.
  LayerStream(
      const model::CausalLm& model,
      const std::vector<model::TokenBatch>& batches,
      const store::ActivationStoreOptions& activations,
      const Division& division = {});

  // A layer as it is to be computed: its place in `config` and its weights,
  // which need not be the model's.
  struct Pass {
    const model::ModelConfig& config;
    std::int64_t layer;
    const model::LayerWeights& weights;
    model::LayerTap* tap = nullptr;
    // Shows what the tap, and `seen`, have added up: where the data is divided,
    // they hold the sums over all of it after the pass.
    ShardSums::Show sums = [](const SumVisitor&) {};
  };

  // Computes the layer for the tap alone: its inputs stay. `seen`, if any, is
  // passed the outputs [N, H] of each micro-batch after the tap has seen them.
  using Seen = std::function<void(std::int64_t, const at::Tensor&)>;
  void look(const Pass& pass, const Seen& seen = {});
  // Computes the layer; its outputs become the next layer's inputs.
  void advance(const Pass& pass);

  std::int64_t micro_batches() const {
    return static_cast<std::int64_t>(batches_.size());
  }
  std::int64_t tokens() const { return tokens_; }  // of all ranks
  // The inputs of the next layer: [N, H] on the model's device.
  at::Tensor inputs(std::int64_t micro_batch) const;

 private:
  using Each = std::function<void(std::int64_t micro_batch)>;
  void pass_all(const Pass& pass, const Each& each) const;
  at::Tensor compute(const Pass& pass, std::int64_t micro_batch) const;

  const model::CausalLm& model_;
  SweepOptions options_;  // how the data is divided
  std::vector<model::MicroBatch> batches_;
  store::ActivationStore activations_;  // key: (0, micro-batch)
  std::int64_t tokens_ = 0;
};

}  // namespace fettle::sweep
