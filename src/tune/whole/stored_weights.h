// SPDX-License-Identifier: Apache-2.0
// Whole weights whose masters and moments wait on disk: fine-tuning of all of a
// model in the memory of one layer's gradients. A layer is updated as soon as
// the backward sweep has left it, exactly and synchronously; so are the head
// with the final norm, and the embeddings, as soon as their gradients are
// whole. The norm of the whole gradient is not known then: clipping is by
// these. Source: Liao et al., "Adding NVMe SSDs to Enable and Accelerate 100B
// Model Fine-tuning on a Single GPU" (Fuyou), 2024.
#pragma once

#include <filesystem>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "tune/whole/weight_store.h"
#include "tune/whole/whole_part.h"

namespace fettle::tune {

struct StoredWeightsOptions {
  WholeOptions whole = {};
  std::filesystem::path folder;
  double clip_norm = 0.0;  // of a layer's gradient; 0: any
};

class StoredWeights : public WholePart {
 public:
  // The reader must outlive the part.
  StoredWeights(const model::ModelReader& reader, StoredWeightsOptions options);

  double state_io_seconds() const override { return store_->io_seconds(); }
  void prepare(const PrepareInput& input) override;
  double gradient_norm_squared(std::int64_t layer) const override;
  void update(std::int64_t layer, const UpdateInput& input) override;
  double global_gradient_norm_squared() const override;
  void save_state(artifact::TensorMap& into) const override;
  void load_state(const artifact::TensorMap& from) override;
  void save_adapter(artifact::TensorMap& into) const override;
  std::optional<std::string> save_large(
      const std::filesystem::path& folder) const override;
  std::vector<std::string> state_files(
      const artifact::TensorMap& state) const override;
  std::vector<std::string> work_files() const override {
    return store_->files();
  }

  void begin_layer(
      sweep::Pass pass,
      std::int64_t layer,
      model::LayerWeights& weights) override;
  void end_layer(
      sweep::Pass pass,
      std::int64_t layer,
      model::LayerWeights& weights) override;
  void end_head() override;
  void end_embeddings() override;

 protected:
  void put(std::size_t place, const at::Tensor& weight) const override;

 private:
  using Gradient =
      std::function<at::Tensor(std::size_t place, const RowPiece& rows)>;
  std::optional<int> generation_of(const artifact::TensorMap& state) const;
  void update_layer(std::int64_t layer);
  void update_globals_of(const std::vector<model::Role>& roles);
  void update_weights(
      const std::vector<std::size_t>& places,
      double scale,
      const Gradient& gradient);

  double clip_norm_;
  std::unique_ptr<WeightStore> store_;
  bool begun_ = false;  // the store holds values
  // By layer, from the last backward sweep; the global one from the last step.
  std::vector<double> norms_squared_;
  double global_norm_squared_ = 0.0;
  at::Tensor ages_;  // [weights] int64: updates each has had
  std::int64_t step_ = 0;
};

}  // namespace fettle::tune
