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
#include <string_view>
#include <vector>

#include "tune/adamw.h"
#include "tune/schedule.h"
#include "tune/trainable_part.h"
#include "tune/whole/global_gradients.h"
#include "tune/whole/weight_gradients.h"
#include "tune/whole/weight_store.h"

namespace fettle::tune {

struct StoredWeightsOptions {
  std::string name;  // of the part in files
  std::filesystem::path folder;
  // By ascending layer, beginning with those outside the layers.
  std::vector<model::WeightId> weights = {};
  double clip_norm = 0.0;  // of a layer's gradient; 0: any
  Schedule schedule = {};
  AdamWOptions adamw = {};
};

class StoredWeights : public TrainablePart {
 public:
  // The reader must outlive the part.
  StoredWeights(const model::ModelReader& reader, StoredWeightsOptions options);

  std::string_view name() const override { return options_.name; }
  bool updates_in_sweep() const override { return true; }
  void prepare(const PrepareInput& input) override;
  bool trains(std::int64_t layer) const override;
  std::int64_t trained_weights(std::int64_t layer) const override;
  void patch(std::int64_t layer, model::LayerWeights& weights) const override;
  double gradient_norm_squared(std::int64_t layer) const override;
  void update(std::int64_t layer, const UpdateInput& input) override;
  bool trains_embeddings() const override;
  std::int64_t trained_globals() const override;
  void patch_globals(model::GlobalWeights& weights) const override;
  double global_gradient_norm_squared() const override;
  double learning_rate(std::int64_t step) const override;
  void save_state(artifact::TensorMap& into) const override;
  void load_state(const artifact::TensorMap& from) override;
  void save_adapter(artifact::TensorMap& into) const override;
  std::optional<std::string> save_large(
      const std::filesystem::path& folder) const override;
  void remove_files() override { store_->remove(); }

  bool wants_expert_gradients() const override { return true; }
  void begin_layer(
      sweep::Pass pass,
      std::int64_t layer,
      model::LayerWeights& weights) override;
  void on_expert_gradient(
      std::int64_t layer, const model::ExpertGradView& view) override;
  void on_router_gradient(
      std::int64_t layer,
      const at::Tensor& x,
      const at::Tensor& d_logits) override;
  void end_layer(
      sweep::Pass pass,
      std::int64_t layer,
      model::LayerWeights& weights) override;
  bool wants_global_gradients() const override;
  void on_head_gradient(const sweep::HeadGradView& view) override;
  void end_head() override;
  void on_embedding_gradient(
      const at::Tensor& ids, const at::Tensor& gradient) override;
  void end_embeddings() override;

 private:
  struct Layer {
    std::size_t first = 0;  // number of its first weight in the store
    WeightGradients gradients{{}};
    double norm_squared = 0.0;  // of the last backward sweep
  };
  // What is outside the layers comes first in the store.
  struct Globals {
    GlobalGradients gradients;
    double norm_squared = 0.0;  // of the last step
  };
  using Gradient = std::function<at::Tensor(const RowPiece& rows)>;
  // Puts a weight's values in place, a view in the stored shape.
  void copy_to(std::size_t place, const at::Tensor& weight) const;
  void update_layer(Layer& layer);
  void update_globals_of(const std::vector<model::Role>& roles);
  void update_weight(std::size_t place, double scale, const Gradient& gradient);

  const model::ModelReader& reader_;
  StoredWeightsOptions options_;
  std::unique_ptr<WeightStore> store_;
  bool begun_ = false;  // the store holds values
  Globals globals_;
  std::vector<Layer> layers_;
  at::Tensor ages_;  // [weights] int64: updates each has had
  std::int64_t step_ = 0;
};

}  // namespace fettle::tune
