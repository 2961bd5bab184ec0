// SPDX-License-Identifier: Apache-2.0
// Condensers as a part of training (ExpertCondenser, arXiv 2604.23036): no
// gradient, but a bias b [E] on each router's logits and, later, experts that
// work on every token. With u_i the sum of p_i = softmax(z + b)_i over a step's
// tokens, after the step
//   b_i += rate * sign(u_i - mean u),
// the reverse of balancing: experts with more than the mean gain, starved ones
// lose. So the lowest bias marks the experts that were starved most often, and
// in the second phase the `count` lowest of each layer become condensers: top-k
// would hardly reach them, and being always on they take up what all tokens
// share. (With the sign of balancing, the lowest would be the experts that
// top-k chooses anyway.) A sign counts steps, so experts starved in every step
// tie; the one with the smaller sum of u over all steps then goes first. The
// rate is constant in a phase; the paper's code has 1e-3 (Qwen1.5-MoE) or 1e-4
// (DeepSeek-V2-Lite, OLMoE) in the first and 5e-5 in the second.
#pragma once

#include <cstdint>
#include <string_view>
#include <vector>

#include "model/weights/model_reader.h"
#include "sweep/sum_so_far.h"
#include "tune/part/trainable_part.h"

namespace fettle::tune {

struct CondenserOptions {
  std::int64_t count = 2;  // condensers of a layer
  std::int64_t after = 0;  // steps of the first phase
  double rate = 1e-3;
  double condensed_rate = 5e-5;  // in the second phase
  // Seen to choose condensers before any step was made.
  std::int64_t score_sequences = 32;
};

class Condenser : public TrainablePart {
 public:
  // Goes on from the model's own biases; a model that has condensers keeps
  // them and is in the second phase. Throws UserError where `count` would leave
  // a router nothing to choose.
  Condenser(
      const model::ModelReader& reader,
      at::Device device,
      const CondenserOptions& options);

  std::string_view name() const override { return "condenser"; }
  void prepare(const PrepareInput& input) override;
  bool trains(std::int64_t) const override { return false; }
  std::int64_t trained_weights(std::int64_t layer) const override;
  void patch(std::int64_t layer, model::LayerWeights& weights) const override;
  double gradient_norm_squared(std::int64_t) const override { return 0.0; }
  void update(std::int64_t layer, const UpdateInput& input) override;
  void forget_step() override;
  double learning_rate(std::int64_t step) const override;
  void save_state(artifact::TensorMap& into) const override;
  void load_state(const artifact::TensorMap& from) override;
  void save_adapter(artifact::TensorMap& into) const override;

  void begin_layer(
      sweep::Pass pass,
      std::int64_t layer,
      model::LayerWeights& weights) override;
  void on_routing(std::int64_t layer, const model::RoutingView& view) override;
  void for_each_sum(
      sweep::Pass pass,
      std::int64_t layer,
      const sweep::SumVisitor& visit) override;
  void end_layer(
      sweep::Pass pass,
      std::int64_t layer,
      model::LayerWeights& weights) override;

 private:
  struct Layer {
    at::Tensor bias;  // [E] fp32 on the device; undefined in a dense layer
    at::Tensor mass;  // [E] fp64 on the CPU: sum of u over all steps
    at::Tensor used;  // [E] fp64 on the device: u of this step, or undefined
    std::vector<std::int64_t> condensers;
    std::vector<std::int64_t> widths;
  };

  bool has_condensers() const;
  void take_mass(Layer& layer);
  void choose(const PrepareInput& input);

  CondenserOptions options_;
  sweep::SumSoFar before_;
  at::Device device_;
  std::vector<Layer> layers_;
};

}  // namespace fettle::tune
