// SPDX-License-Identifier: Apache-2.0
// Final values of whole weights in an adapter: a tensor
// "PART.layers.LAYER.ROLE" (experts: ".ROLE.EXPERT"; outside the layers:
// "PART.ROLE") of the stored shape, fp32, for each that changed.
#pragma once

#include <string>
#include <string_view>
#include <vector>

#include "artifact/tensor_file.h"
#include "model/family/model_config.h"
#include "tune/part/adapter_part.h"

namespace fettle::tune {

std::string weight_key(std::string_view part, const model::WeightId& id);

// The weights whose key with `suffix` is in `from`, in the model's order.
std::vector<model::WeightId> stored_weights(
    const artifact::TensorMap& from,
    std::string_view part,
    std::string_view suffix,
    const model::ModelConfig& config);

class WeightDelta : public AdapterPart {
 public:
  // Throws UserError on a tensor of another shape or type.
  WeightDelta(
      const artifact::TensorMap& from,
      std::string_view part,
      const model::ModelConfig& config);

  void patch(std::int64_t layer, model::LayerWeights& weights) const override;
  void patch_globals(model::GlobalWeights& weights) const override;
  bool changes(const model::WeightId& id) const override;
  at::Tensor merge(
      const model::WeightId& id, const at::Tensor& base) const override;

 private:
  struct Value {
    model::WeightId id;
    at::Tensor value;
  };
  const at::Tensor* find(const model::WeightId& id) const;

  std::vector<std::vector<Value>> layers_;
  std::vector<Value> globals_;
};

}  // namespace fettle::tune
