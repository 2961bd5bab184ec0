// SPDX-License-Identifier: Apache-2.0
#include "tune/low_rank/low_rank_delta.h"

#include <algorithm>

#include "core/error.h"
#include "tune/part/state_tensors.h"

namespace fettle::tune {

std::string low_rank_key(const LowRankTarget& target) {
  return layer_key("lora", target.layer, target.name());
}

void LowRankDelta::save_pairs(
    const LowRankPairs& pairs, artifact::TensorMap& into) {
  into[low_rank_key(pairs.target) + ".left"] = pairs.left;
  into[low_rank_key(pairs.target) + ".right"] = pairs.right;
}

LowRankDelta::LowRankDelta(
    const artifact::TensorMap& from, const model::ModelConfig& config) {
  scale_ = take_tensor(from, kLowRankScale, {at::kFloat, {1}}).item<float>();
  constexpr LowRankKinds kAll{true, true, true, true};
  for (std::int64_t l = 0; l < config.num_layers(); ++l) {
    std::vector<LowRankPairs>& layer = layers_.emplace_back();
    for (LowRankTarget& target : low_rank_targets(kAll, config, l)) {
      const std::string key = low_rank_key(target);
      if (!from.contains(key + ".left")) continue;
      const at::Tensor left =
          take_tensor(from, key + ".left", {at::kFloat, {target.rows(), -1}});
      const at::Tensor right = take_tensor(
          from,
          key + ".right",
          {at::kFloat, {target.matrices() * left.size(1), target.columns}});
      layer.push_back({std::move(target), left, right});
    }
  }
}

void LowRankDelta::patch(
    std::int64_t layer, model::LayerWeights& weights) const {
  const at::Device device = weights.device();
  for (const LowRankPairs& pairs : layers_[layer]) {
    add_pairs(
        {pairs.target, pairs.left.to(device), pairs.right.to(device)},
        scale_,
        weights);
  }
}

const LowRankPairs* LowRankDelta::find(const model::WeightId& id) const {
  if (id.layer < 0) return nullptr;
  const auto& layer = layers_[id.layer];
  const auto found = std::ranges::find_if(
      layer, [&](const auto& pairs) { return pairs.target.covers(id); });
  return found == layer.end() ? nullptr : &*found;
}

bool LowRankDelta::changes(const model::WeightId& id) const {
  const LowRankPairs* pairs = find(id);
  return pairs != nullptr &&
         pairs->changed(std::max<std::int64_t>(id.expert, 0));
}

at::Tensor LowRankDelta::merge(
    const model::WeightId& id, const at::Tensor& base) const {
  const LowRankPairs* pairs = find(id);
  FETTLE_ASSERT(pairs != nullptr);
  return with_pair(*pairs, scale_, id, base);
}

}  // namespace fettle::tune
