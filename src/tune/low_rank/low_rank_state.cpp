// SPDX-License-Identifier: Apache-2.0
// What a run with low-rank pairs leaves on disk.
#include "tune/low_rank/low_rank.h"
#include "tune/low_rank/low_rank_delta.h"
#include "tune/part/state_tensors.h"

namespace fettle::tune {

void LowRank::save_state(artifact::TensorMap& into) const {
  for (const Layer& layer : layers_) {
    for (const Trained& target : layer.targets) {
      LowRankDelta::save_pairs(target.pairs, into);
      const std::string key = low_rank_key(target.pairs.target);
      const auto save = [&](const std::string& side, const AdamWState& adam) {
        into[key + side + ".first"] = adam.first;
        into[key + side + ".second"] = adam.second;
        into[key + side + ".age"] = adam.age.to(at::kInt);
      };
      save(".left", target.left_adam);
      save(".right", target.right_adam);
    }
  }
}

void LowRank::load_state(const artifact::TensorMap& from) {
  for (Layer& layer : layers_) {
    for (Trained& target : layer.targets) {
      const std::string key = low_rank_key(target.pairs.target);
      const auto load = [&](const std::string& side,
                            at::Tensor& values,
                            AdamWState& adam) {
        const ExpectedTensor like{at::kFloat, values.sizes().vec()};
        if (options_.owners.owns(target.pairs.target.layer)) {
          adam.first =
              take_tensor(from, key + side + ".first", like).to(device_);
          adam.second =
              take_tensor(from, key + side + ".second", like).to(device_);
        }
        adam.age =
            take_tensor(from, key + side + ".age", {at::kInt, {like.shape[0]}})
                .to(at::kLong);
        values = take_tensor(from, key + side, like).to(device_);
      };
      load(".left", target.pairs.left, target.left_adam);
      load(".right", target.pairs.right, target.right_adam);
    }
  }
}

void LowRank::save_adapter(artifact::TensorMap& into) const {
  into[kLowRankScale] = at::full({1}, scale(), at::kFloat);
  for (const Layer& layer : layers_) {
    for (const Trained& target : layer.targets) {
      LowRankDelta::save_pairs(target.pairs, into);
    }
  }
}

}  // namespace fettle::tune
