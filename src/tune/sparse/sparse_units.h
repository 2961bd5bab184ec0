// SPDX-License-Identifier: Apache-2.0
// A chosen few of a model's units (neurons, or blocks of its matrices) as a
// trainable part. Chosen ("active") units have fp32 masters, gradients and
// moments: 12 bytes of state a weight, beside the unit's number (see
// compact_index.h). A unit that is dropped when the choice is made anew stays
// as it was learned ("frozen") and is never lost from the result.
#pragma once

#include <cstdint>
#include <vector>

#include "model/weights/model_reader.h"
#include "tune/part/adamw.h"
#include "tune/part/trainable_part.h"
#include "tune/sparse/sparse_options.h"
#include "tune/sparse/unit_rows.h"

namespace fettle::tune {

class SparseUnits : public TrainablePart {
 public:
  void prepare(const PrepareInput& input) override;
  bool trains(std::int64_t layer) const override;
  std::int64_t trained_weights(std::int64_t layer) const override;
  void patch(std::int64_t layer, model::LayerWeights& weights) const override;
  double gradient_norm_squared(std::int64_t layer) const override;
  void update(std::int64_t layer, const UpdateInput& input) override;
  std::int64_t owner(std::int64_t layer) const override;
  bool divides_state() const override { return options_.owners.divide(); }
  double learning_rate(std::int64_t step) const override;
  void save_state(artifact::TensorMap& into) const override;
  void load_state(const artifact::TensorMap& from) override;
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

  at::Tensor active(std::int64_t layer) const;           // [n] int64
  const at::Tensor& gradient(std::int64_t layer) const;  // [p, n, w]
  UnitRows frozen(std::int64_t layer) const;
  // Bytes of what this rank keeps of a layer between steps.
  std::int64_t state_bytes(std::int64_t layer) const;

  // Makes exactly `index` [n] of `layer` active. Survivors keep values and
  // moments; those that return keep their learned values. More than once only
  // where reselect_every is not 0.
  void set_active(std::int64_t layer, const at::Tensor& index);

 protected:
  // What a unit's values are: p planes of w.
  struct UnitShape {
    std::int64_t planes = 0;
    std::int64_t width = 0;
  };
  struct Layer {
    std::int64_t units = 0;
    CompactRows active;
    CompactRows frozen;
    AdamWState adam;      // of the active values; for its ages see num_ages()
    at::Tensor gradient;  // [p, n, w], or undefined outside a step
    at::Tensor mass;      // [E] fp64: mixing weights of the step, if asked for
  };
  // Active units of one expert: [first, first + count) of the layer's.
  struct UnitRun {
    std::int64_t expert = 0;
    std::int64_t first = 0;
    std::int64_t count = 0;
  };

  // `units` of each layer. Masters and moments are kept on `device`. The reader
  // must outlive the part.
  SparseUnits(
      const model::ModelReader& reader,
      at::Device device,
      const SparseOptions& options,
      UnitShape shape,
      const std::vector<std::int64_t>& units);

  // A measure of every unit that grows with what training it may gain.
  virtual UnitScores score(const PrepareInput& input) const = 0;
  // The model's own values of units `index` of `layer`.
  virtual UnitRows read(std::int64_t layer, const at::Tensor& index) const = 0;
  virtual void write(
      std::int64_t layer,
      const UnitRows& rows,
      model::LayerWeights& weights) const = 0;
  // The active units of `layer` are now `index`.
  virtual void on_active_changed(
      std::int64_t /*layer*/, const at::Tensor& /*index*/) {}
  virtual std::vector<UnitRun> unit_runs(std::int64_t layer) const = 0;
  // The first choice of all, by layer.
  virtual std::vector<CompactIndex> choose(const PrepareInput& input) const;

  const model::ModelReader& reader() const { return reader_; }
  at::Device device() const { return device_; }
  const SparseOptions& options() const { return options_; }
  const Layer& layer(std::int64_t l) const { return layers_[l]; }
  at::Tensor& gradient_of(std::int64_t l) { return layers_[l].gradient; }
  std::int64_t num_layers() const { return std::ssize(layers_); }

 private:
  UnitRows gather(
      std::int64_t layer, const UnitRows& known, const at::Tensor& index) const;
  void set_rows(std::int64_t layer, UnitRows active, UnitRows frozen);
  void step(Layer& layer, double rate, const UnitRun& run, std::int64_t place);
  bool ages_by_unit() const { return options_.reselect_every > 0; }
  // Units that were chosen together have one age, and those of an expert where
  // experts may rest.
  std::int64_t num_ages(std::int64_t layer) const;
  std::vector<CompactIndex> exchange(const PrepareInput& input) const;
  UnitScores worth() const;
  at::Tensor worth_of(std::int64_t layer) const;  // [n] fp64 on the CPU
  bool is_due(std::int64_t step) const;

  const model::ModelReader& reader_;
  at::Device device_;
  SparseOptions options_;
  UnitShape shape_;
  std::vector<Layer> layers_;
};

}  // namespace fettle::tune
