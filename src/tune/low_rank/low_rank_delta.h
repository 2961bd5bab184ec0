// SPDX-License-Identifier: Apache-2.0
// Low-rank pairs in an adapter:
//   lora.scale                      [1] fp32
//   lora.layers.{l}.{target}.left   [rows, r] fp32
//   lora.layers.{l}.{target}.right  [matrices r, columns] fp32
// with targets as in low_rank_target.h and the two sides as in
// low_rank_pairs.h; experts are one below the other, each at its own width.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "artifact/tensor_file.h"
#include "model/family/model_config.h"
#include "tune/low_rank/low_rank_pairs.h"
#include "tune/part/adapter_part.h"

namespace fettle::tune {

inline constexpr const char* kLowRankScale = "lora.scale";

// "lora.layers.{l}.{target}"
std::string low_rank_key(const LowRankTarget& target);

class LowRankDelta : public AdapterPart {
 public:
  // Throws UserError on a tensor that is missing or doesn't fit `config`.
  LowRankDelta(
      const artifact::TensorMap& from, const model::ModelConfig& config);

  static void save_pairs(const LowRankPairs& pairs, artifact::TensorMap& into);

  // Once a loaded layer: what is there is taken for the base.
  void patch(std::int64_t layer, model::LayerWeights& weights) const override;
  bool changes(const model::WeightId& id) const override;
  at::Tensor merge(
      const model::WeightId& id, const at::Tensor& base) const override;

  float scale() const { return scale_; }
  const std::vector<LowRankPairs>& layer(std::int64_t l) const {
    return layers_[l];
  }

 private:
  const LowRankPairs* find(const model::WeightId& id) const;

  float scale_ = 0.0F;
  std::vector<std::vector<LowRankPairs>> layers_;
};

}  // namespace fettle::tune
