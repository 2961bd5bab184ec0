// SPDX-License-Identifier: Apache-2.0
// What one trainable part left behind: final values of some weights, able to
// enter a loaded layer or a tensor on its way to disk. Both give the same
// numbers.
#pragma once

#include <ATen/ATen.h>

#include <cstdint>

#include "model/family/weight_table.h"
#include "model/weights/layer_weights.h"

namespace fettle::tune {

class AdapterPart {
 public:
  virtual ~AdapterPart() = default;
  // What the part changes beside weights.
  virtual void change(model::ModelConfig&) const {}
  virtual void patch(
      std::int64_t layer, model::LayerWeights& weights) const = 0;
  virtual void patch_globals(model::GlobalWeights&) const {}
  virtual bool changes(const model::WeightId& id) const = 0;
  // The tensor `id` with its final values in, given the base's, fp32 on the
  // CPU, in the role's canonical shape. Only for tensors that change.
  virtual at::Tensor merge(
      const model::WeightId& id, const at::Tensor& base) const = 0;
};

}  // namespace fettle::tune
