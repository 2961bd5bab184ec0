// SPDX-License-Identifier: Apache-2.0
// Tuned neurons in an adapter. Per layer that has any:
//   neurons.layers.{l}.index: [n] int32, ascending, rows of ExpertBank::down
//   neurons.layers.{l}.gate_proj, .up_proj: [n, H] fp32, rows of those that the
//     model has
//   neurons.layers.{l}.down_proj: [n, H] fp32, columns of down_proj
#pragma once

#include <cstdint>
#include <vector>

#include "artifact/tensor_file.h"
#include "model/family/model_config.h"
#include "tune/part/adapter_part.h"
#include "tune/sparse/neuron_rows.h"

namespace fettle::tune {

class NeuronDelta : public AdapterPart {
 public:
  // Throws UserError on a tensor that doesn't fit `config`.
  NeuronDelta(
      const artifact::TensorMap& from, const model::ModelConfig& config);

  static void save_layer(
      const UnitRows& rows, std::int64_t layer, artifact::TensorMap& into);

  void patch(std::int64_t layer, model::LayerWeights& weights) const override;
  bool changes(const model::WeightId& id) const override;
  at::Tensor merge(
      const model::WeightId& id, const at::Tensor& base) const override;

 private:
  struct Layer {
    std::vector<std::int64_t> offsets;
    std::vector<std::int64_t> ranges;
    UnitRows rows;
  };
  std::vector<Layer> layers_;
};

}  // namespace fettle::tune
