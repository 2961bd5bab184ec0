// SPDX-License-Identifier: Apache-2.0
// Low-rank pairs as a trainable part: W + s L R with s = alpha / rank beside
// the chosen weights of all layers.
//
// The sum is formed once when a layer is loaded, so the model computes exactly
// what the merged one will; that costs rank / n of an expert's products for its
// n tokens of a step. The gradients of experts and of the attention are formed
// from activations through the rank, never as a matrix of the weight's size.
//
// The base is not kept beside the sum: patch() puts the sum in the place of the
// layer's tensor and leaves the stored one alone (CausalLm::set_patch), so that
// every sum starts from the same bits, and one layer's targets are all it
// costs.
#pragma once

#include <cstdint>
#include <string_view>
#include <vector>

#include "model/weights/model_reader.h"
#include "tune/low_rank/low_rank_pairs.h"
#include "tune/part/adamw.h"
#include "tune/part/schedule.h"
#include "tune/part/state_owners.h"
#include "tune/part/trainable_part.h"
#include "tune/whole/weight_gradients.h"

namespace fettle::tune {

struct LowRankOptions {
  LowRankKinds kinds = {};
  std::int64_t rank = 16;
  double alpha = 32.0;
  std::uint64_t seed = 1;
  Schedule schedule = {};
  AdamWOptions adamw = {};
  StateOwners owners = {};
};

class LowRank : public TrainablePart {
 public:
  // Pairs and moments are kept on `device`. Throws UserError when the model has
  // no weights of a kind asked for.
  LowRank(
      const model::ModelReader& reader,
      at::Device device,
      const LowRankOptions& options);

  std::string_view name() const override { return "lora"; }
  void prepare(const PrepareInput&) override {}
  bool trains(std::int64_t layer) const override;
  std::int64_t trained_weights(std::int64_t layer) const override;
  // Once a loaded layer: what is there is taken for the base.
  void patch(std::int64_t layer, model::LayerWeights& weights) const override;
  double gradient_norm_squared(std::int64_t layer) const override;
  void update(std::int64_t layer, const UpdateInput& input) override;
  std::int64_t owner(std::int64_t layer) const override;
  bool divides_state() const override { return options_.owners.divide(); }
  double learning_rate(std::int64_t step) const override;
  void save_state(artifact::TensorMap& into) const override;
  void load_state(const artifact::TensorMap& from) override;
  void save_adapter(artifact::TensorMap& into) const override;

  bool wants_expert_gradients() const override {
    return options_.kinds.experts;
  }
  void begin_layer(
      sweep::Pass pass,
      std::int64_t layer,
      model::LayerWeights& weights) override;
  void for_each_sum(
      sweep::Pass pass,
      std::int64_t layer,
      const sweep::SumVisitor& visit) override;
  void on_expert_gradient(
      std::int64_t layer, const model::ExpertGradView& view) override;
  void on_run_gradient(
      std::int64_t layer, const model::RunGradView& view) override;
  bool wants_projection_gradients() const override {
    return options_.kinds.attention;
  }
  void on_projection_gradient(
      std::int64_t layer,
      model::Role role,
      const at::Tensor& x,
      const at::Tensor& dy) override;
  void end_layer(
      sweep::Pass pass,
      std::int64_t layer,
      model::LayerWeights& weights) override;

  // Gradients of target `name` of a layer since the last backward sweep;
  // undefined tensors before.
  PairGradient gradient(std::int64_t layer, std::string_view name) const;

 private:
  struct Trained {
    LowRankPairs pairs;
    AdamWState left_adam, right_adam;
    PairGradient gradient;
    at::Tensor seen;  // uint8 by matrix: whether tokens reached it
  };
  struct Layer {
    std::vector<Trained> targets;
    WeightGradients matrices{{}};  // of shared and dense MLPs
  };

  void check_kinds(const model::ModelConfig& config) const;
  float scale() const;
  // What the matrices have gathered until now joins the pairs' gradients.
  void fold(Layer& layer);
  void update(Trained& target, double rate);

  at::Device device_;
  LowRankOptions options_;
  std::vector<Layer> layers_;
};

}  // namespace fettle::tune
