// SPDX-License-Identifier: Apache-2.0
// A model as the sweeps hold it: the reader, the embeddings and head or a way
// to them, and a cache of layers that never holds more than its budget (and
// always the layer in use and the one being fetched).
#pragma once

#include <filesystem>
#include <functional>
#include <memory>

#include "model/weights/layer_weights.h"
#include "model/weights/model_reader.h"
#include "store/layer_cache.h"

namespace fettle::model {

struct ModelOptions {
  // Where the layers compute.
  at::Device device = at::kCPU;
  // Type of weights and activations there.
  at::ScalarType compute_type = at::kFloat;
  // Bytes of layers that may stay resident between sweeps.
  std::int64_t resident_bytes = 0;
  // Layers are handed out with their packed weights still packed, to be
  // multiplied as they are: for passes of few tokens without gradient.
  bool keep_packed = false;
  // A layer is read while the one before it is in use: two at a time.
  bool read_ahead = true;
  // Embeddings and head stay in memory. Else embeddings are read by row, and
  // the head whenever it is asked for.
  bool hold_globals = true;
  // Experts are apart (mlp_weights.h): read, or unpacked, whenever tokens have
  // chosen them. A patch can't change them.
  bool experts_apart = false;
};

class CausalLm {
 public:
  CausalLm(const std::filesystem::path& folder, const ModelOptions& options);
  CausalLm(std::unique_ptr<ModelReader> reader, const ModelOptions& options);

  const ModelConfig& config() const { return reader_->config(); }
  const ModelReader& reader() const { return *reader_; }
  // Embeddings and head are undefined where they aren't held.
  const GlobalWeights& globals() const { return globals_; }
  // Lets a caller put current values in, as a patch does for layers.
  GlobalWeights& globals() { return globals_; }
  // The head [V, H], which is there as long as what is returned: who asks for
  // it several times keeps it meanwhile, since it may be read each time.
  std::shared_ptr<const at::Tensor> lm_head() const;
  // Rows `ids` [N] of the embeddings, in the type of the computation: [N, H].
  at::Tensor embedding_rows(const at::Tensor& ids) const;
  const ModelOptions& options() const { return options_; }

  // Layer `layer`, ready on the device; starts fetching `next` (-1: none)
  // behind it, if the model reads ahead. The patch is applied to what is
  // returned.
  std::shared_ptr<LayerWeights> acquire(std::int64_t layer, std::int64_t next);

  // Seconds that acquire() has waited for layers that were not at hand.
  double waited_seconds() const { return cache_->waited_seconds(); }
  // Seconds spent on reading and widening layers, mostly beside other work.
  double loading_seconds() const { return cache_->loading_seconds(); }

  // Called on a layer each time it is acquired, before use: trainable parts put
  // their current values in. The patch may write over values, as long as the
  // same layer comes of doing so twice, or put another tensor in a tensor's
  // place: that one the cache doesn't see, so that a sum is always formed from
  // the stored values.
  using Patch = std::function<void(std::int64_t layer, LayerWeights&)>;
  void set_patch(Patch patch) { patch_ = std::move(patch); }

 private:
  at::Tensor read_global(Role role) const;

  ModelOptions options_;
  std::unique_ptr<ModelReader> reader_;
  LoadedBytes loaded_;
  at::ScalarType globals_type_;
  GlobalWeights globals_;
  mutable std::weak_ptr<const at::Tensor> lm_head_;  // where it isn't held
  std::unique_ptr<store::LayerCache<LayerWeights>> cache_;
  Patch patch_;
};

// ids [N] → [N, H].
at::Tensor embed(const CausalLm& model, const at::Tensor& ids);

// The factor by which embed multiplies the embeddings.
double embedding_multiplier(const CausalLm& model);

// Vocabulary logits [n, V] fp32 of final hidden states [n, H] (norm included).
at::Tensor logits(const CausalLm& model, const at::Tensor& hidden);

// The same of decoded tokens, whose bits don't depend on the rows beside them
// where there is an op for that.
at::Tensor decoded_logits(const CausalLm& model, const at::Tensor& hidden);

}  // namespace fettle::model
