// SPDX-License-Identifier: Apache-2.0
// Whole weights as a trainable part: routers, the experts that ESFT chose, or
// all of a model. Each weight has an fp32 master, moments and in a step a
// gradient: 16 bytes a value.
#pragma once

#include <cstdint>
#include <functional>
#include <string>
#include <string_view>
#include <vector>

#include "model/model_reader.h"
#include "tune/adamw.h"
#include "tune/schedule.h"
#include "tune/trainable_part.h"
#include "tune/whole/global_gradients.h"
#include "tune/whole/weight_gradients.h"

namespace fettle::tune {

using WeightIds = std::vector<model::WeightId>;

struct WholeWeightsOptions {
  std::string name;  // of the part in files
  WeightIds weights = {};
  // Where given, chooses the weights before step 0.
  std::function<WeightIds(const PrepareInput&)> choose = {};
  std::int64_t frozen_steps = 0;
  // Of the steps after those; its step 0 is the first that trains.
  Schedule schedule = {};
  AdamWOptions adamw = {};
};

// The routers of all sparse layers.
WeightIds router_weights(const model::ModelConfig& config);

class WholeWeights : public TrainablePart {
 public:
  // Masters, moments and gradients are kept on `device`, where the layers
  // compute or on the CPU; the reader must outlive the part.
  WholeWeights(
      const model::ModelReader& reader,
      at::Device device,
      WholeWeightsOptions options);

  std::string_view name() const override { return options_.name; }
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
  void update_globals(const UpdateInput& input) override;
  double learning_rate(std::int64_t step) const override;
  void save_state(artifact::TensorMap& into) const override;
  void load_state(const artifact::TensorMap& from) override;
  void save_adapter(artifact::TensorMap& into) const override;

  bool wants_expert_gradients() const override { return has_experts_; }
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
  void on_embedding_gradient(
      const at::Tensor& ids, const at::Tensor& gradient) override;

 private:
  struct Master {
    at::Tensor value;  // fp32, as packed_view
    AdamWState adam;
  };
  struct Layer {
    std::vector<Master> masters;  // one for each of gradients.ids()
    WeightGradients gradients{{}};
  };
  struct Globals {
    std::vector<Master> masters;  // one for each of gradients.ids()
    GlobalGradients gradients;
  };
  using Gradient = std::function<at::Tensor(const RowPiece& rows)>;

  void own(const WeightIds& ids);
  Master master_of(const model::WeightId& id) const;
  // Calls visit(id, master) for every weight. Self: with or without const.
  template <typename Self, typename Visit>
  static void for_each_master(Self& self, const Visit& visit);
  void step(Master& master, const UpdateInput& input, const Gradient& gradient);

  const model::ModelReader& reader_;
  at::Device device_;
  WholeWeightsOptions options_;
  Globals globals_;
  std::vector<Layer> layers_;
  bool training_ = false;
  bool has_experts_ = false;
};

}  // namespace fettle::tune
