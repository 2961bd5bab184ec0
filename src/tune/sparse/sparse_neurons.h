// SPDX-License-Identifier: Apache-2.0
// The trainable part of USAF in its neuron form: a chosen few of all experts'
// neurons. An expert is a sum over its neurons, so a neuron's gradient needs no
// more than its own rows.
#pragma once

#include <string_view>
#include <vector>

#include "tune/sparse/sparse_units.h"

namespace fettle::tune {

class SparseNeurons : public SparseUnits {
 public:
  // See SparseUnits' constructor.
  SparseNeurons(
      const model::ModelReader& reader,
      at::Device device,
      const SparseOptions& options);

  std::string_view name() const override { return "neurons"; }
  void save_adapter(artifact::TensorMap& into) const override;
  bool wants_expert_gradients() const override { return true; }
  void on_expert_gradient(
      std::int64_t layer, const model::ExpertGradView& view) override;

 protected:
  UnitScores score(const PrepareInput& input) const override;
  UnitRows read(std::int64_t layer, const at::Tensor& index) const override;
  void write(
      std::int64_t layer,
      const UnitRows& rows,
      model::LayerWeights& weights) const override;
  void on_active_changed(std::int64_t layer, const at::Tensor& index) override;
  std::vector<UnitRun> unit_runs(std::int64_t layer) const override;

 private:
  struct Places {
    std::vector<std::int64_t> offsets;  // [E + 1] of the bank
    std::vector<std::int64_t> ranges;   // [E + 1] into the active neurons
    at::Tensor columns;                 // [n] dimension within its expert
  };
  std::vector<Places> places_;
};

}  // namespace fettle::tune
