// SPDX-License-Identifier: Apache-2.0
// The trainable part of USAF in its neuron form: a chosen few of all experts'
// neurons. Chosen ("active") neurons have fp32 masters, gradients and moments:
// 12 bytes of state a weight. A neuron that is dropped when the choice is made
// anew stays as it was learned ("frozen") and is never lost from the result.
#pragma once

#include <cstdint>
#include <string_view>
#include <vector>

#include "model/model_reader.h"
#include "tune/adamw.h"
#include "tune/neuron_rows.h"
#include "tune/schedule.h"
#include "tune/selection.h"
#include "tune/trainable_part.h"

namespace fettle::tune {

// What a chosen neuron is worth when some are to be dropped.
enum class DropBy {
  kDelta,   // ||w - w0||
  kMoment,  // sum of |m| / sqrt(v) |w - w0|: still moving, and far from home
};

struct SparseNeuronsOptions {
  double frac = 0.05;  // of all experts' neurons
  Scope scope = Scope::kGlobal;
  std::int64_t score_sequences = 32;
  std::int64_t reselect_every = 0;  // steps; 0: never
  double drop_fraction = 0.3;       // at first; see drop_share()
  DropBy drop_by = DropBy::kDelta;
  Schedule schedule = {};
  AdamWOptions adamw = {};
};

class SparseNeurons : public TrainablePart {
 public:
  // Masters and moments are kept on `device`. The reader must outlive the part.
  SparseNeurons(
      const model::ModelReader& reader,
      at::Device device,
      const SparseNeuronsOptions& options);

  std::string_view name() const override { return "neurons"; }
  void prepare(const PrepareInput& input) override;
  bool trains(std::int64_t layer) const override;
  std::int64_t trainable_weights() const override;
  void patch(std::int64_t layer, model::LayerWeights& weights) const override;
  double gradient_norm_squared(std::int64_t layer) const override;
  void update(std::int64_t layer, const UpdateInput& input) override;
  double learning_rate(std::int64_t step) const override;
  void save_state(artifact::TensorMap& into) const override;
  void load_state(const artifact::TensorMap& from) override;
  void save_adapter(artifact::TensorMap& into) const override;

  bool wants_expert_gradients() const override { return true; }
  void begin_layer(
      sweep::Pass pass,
      std::int64_t layer,
      model::LayerWeights& weights) override;
  void on_expert_gradient(
      std::int64_t layer, const model::ExpertGradView& view) override;

  const at::Tensor& active(std::int64_t layer) const;    // [n] int64
  const at::Tensor& gradient(std::int64_t layer) const;  // [3, n, H]
  const NeuronRows& frozen(std::int64_t layer) const;

  // Makes exactly `index` [n] of `layer` active. Survivors keep values and
  // moments; those that return keep their learned values.
  void set_active(std::int64_t layer, const at::Tensor& index);

 private:
  struct Layer {
    std::vector<std::int64_t> offsets;  // [E + 1] of the bank
    NeuronRows active;
    NeuronRows frozen;
    AdamWState adam;      // of the active values
    at::Tensor gradient;  // [3, n, H], or undefined outside a step
    // Derived from the indices.
    BankRows active_rows;
    BankRows frozen_rows;
    std::vector<std::int64_t> ranges;  // [E + 1] into active
    at::Tensor columns;                // [n] dimension within its expert
  };

  void set_rows(Layer& layer, NeuronRows active, NeuronRows frozen);
  NeuronSets active_sets() const;
  NeuronScores worth() const;
  bool is_due(std::int64_t step) const;

  const model::ModelReader& reader_;
  at::Device device_;
  SparseNeuronsOptions options_;
  std::vector<Layer> layers_;
};

}  // namespace fettle::tune
