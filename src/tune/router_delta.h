// SPDX-License-Identifier: Apache-2.0
// Tuned routers in an adapter: router.layers.{l}.weight [E, H] fp32 of each
// layer whose router was trained.
#pragma once

#include <cstdint>
#include <vector>

#include "artifact/tensor_file.h"
#include "model/model_config.h"
#include "tune/adapter_part.h"

namespace fettle::tune {

class RouterDelta : public AdapterPart {
 public:
  // Throws UserError on a tensor that doesn't fit `config`.
  RouterDelta(
      const artifact::TensorMap& from, const model::ModelConfig& config);

  static void save_layer(
      const at::Tensor& weight, std::int64_t layer, artifact::TensorMap& into);

  void patch(std::int64_t layer, model::LayerWeights& weights) const override;
  bool changes(const model::WeightId& id) const override;
  at::Tensor merge(
      const model::WeightId& id, const at::Tensor& base) const override;

 private:
  std::vector<at::Tensor> weights_;  // [L], undefined where untouched
};

}  // namespace fettle::tune
