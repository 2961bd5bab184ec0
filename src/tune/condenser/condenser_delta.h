// SPDX-License-Identifier: Apache-2.0
// Router biases and condensers in an adapter, of each sparse layer:
// condenser.layers.{l}.bias [E] fp32 and condenser.layers.{l}.experts [r]
// int32, ascending.
#pragma once

#include <cstdint>
#include <vector>

#include "artifact/tensor_file.h"
#include "model/family/model_config.h"
#include "tune/part/adapter_part.h"

namespace fettle::tune {

struct RouterChange {
  at::Tensor bias;                       // [E] fp32; undefined: none
  std::vector<std::int64_t> condensers;  // ascending
};

void save_router_change(
    const RouterChange& change, std::int64_t layer, artifact::TensorMap& into);

// Throws UserError on a tensor that is missing or doesn't fit.
RouterChange load_router_change(
    const artifact::TensorMap& from, std::int64_t layer, std::int64_t experts);

class CondenserDelta : public AdapterPart {
 public:
  // Throws UserError on a tensor that is missing or doesn't fit `config`.
  CondenserDelta(
      const artifact::TensorMap& from, const model::ModelConfig& config);

  void change(model::ModelConfig& config) const override;
  void patch(std::int64_t layer, model::LayerWeights& weights) const override;
  bool changes(const model::WeightId& id) const override;
  at::Tensor merge(
      const model::WeightId& id, const at::Tensor& base) const override;

 private:
  std::vector<RouterChange> layers_;
};

}  // namespace fettle::tune
