// SPDX-License-Identifier: Apache-2.0
// Whole weights as a trainable part, wherever their masters lie: which they
// are, when they are trained, and how their gradients are collected.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "model/weights/model_reader.h"
#include "tune/part/adamw.h"
#include "tune/part/schedule.h"
#include "tune/part/state_owners.h"
#include "tune/part/trainable_part.h"
#include "tune/whole/global_gradients.h"
#include "tune/whole/weight_gradients.h"

namespace fettle::tune {

using WeightIds = std::vector<model::WeightId>;

struct WholeOptions {
  std::string name;  // of the part in files
  WeightIds weights = {};
  std::int64_t frozen_steps = 0;
  // For the steps after the frozen ones; its step 0 is the first that trains.
  Schedule schedule = {};
  AdamWOptions adamw = {};
  StateOwners owners = {};
};

class WholePart : public TrainablePart {
 public:
  std::string_view name() const override { return options_.name; }
  void prepare(const PrepareInput& input) override;
  bool trains(std::int64_t layer) const override;
  std::int64_t trained_weights(std::int64_t layer) const override;
  void patch(std::int64_t layer, model::LayerWeights& weights) const override;
  bool trains_embeddings() const override;
  std::int64_t trained_globals() const override;
  void patch_globals(model::GlobalWeights& weights) const override;
  double learning_rate(std::int64_t step) const override;
  std::int64_t owner(std::int64_t layer) const override;
  bool divides_state() const override { return owners().divide(); }

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
  void for_each_sum(
      sweep::Pass pass,
      std::int64_t layer,
      const sweep::SumVisitor& visit) override;
  void end_layer(
      sweep::Pass pass,
      std::int64_t layer,
      model::LayerWeights& weights) override;
  bool wants_global_gradients() const override;
  void on_head_gradient(const sweep::HeadGradView& view) override;
  void on_embedding_gradient(
      const at::Tensor& ids, const at::Tensor& gradient) override;
  void for_each_head_sum(
      at::Device device, const sweep::SumVisitor& visit) override;
  void for_each_embedding_sum(const sweep::SumVisitor& visit) override;

 protected:
  // The reader must outlive the part.
  WholePart(const model::ModelReader& reader, WholeOptions options);

  // Trains `weights` from now on.
  void own(const WeightIds& weights);
  // Puts the master of a weight into `weight`, a view in the stored shape.
  virtual void put(std::size_t place, const at::Tensor& weight) const = 0;

  const model::ModelReader& reader() const { return reader_; }
  const StateOwners& owners() const { return options_.owners; }
  // Norms, biases and constants don't decay, as in transformers' Trainer, which
  // takes a router's scales for neither.
  AdamWOptions adamw_of(std::size_t place) const;
  bool training() const { return training_; }
  // By place: those outside the layers, as globals() numbers them, then those
  // of each layer, as gradients() does, from first_of().
  const WeightIds& ids() const { return ids_; }
  std::size_t first_of(std::int64_t layer) const {
    return layers_[layer].first;
  }
  GlobalGradients& globals() { return globals_; }
  const GlobalGradients& globals() const { return globals_; }
  WeightGradients& gradients(std::int64_t layer) {
    return layers_[layer].gradients;
  }
  const WeightGradients& gradients(std::int64_t layer) const {
    return layers_[layer].gradients;
  }

 private:
  struct Layer {
    std::size_t first = 0;
    WeightGradients gradients{{}};
  };
  std::int64_t numel(const WeightIds& ids) const;

  const model::ModelReader& reader_;
  WholeOptions options_;
  WeightIds ids_;
  GlobalGradients globals_;
  std::vector<Layer> layers_;
  bool training_ = false;
  bool has_experts_ = false;
};

}  // namespace fettle::tune
