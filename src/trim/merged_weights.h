// SPDX-License-Identifier: Apache-2.0
// The experts of a merged model, each made when asked for.
#pragma once

#include <ATen/ATen.h>

#include <cstdint>

#include "model/weights/model_reader.h"
#include "trim/merge_plan.h"
#include "trim/merged_expert.h"

namespace fettle::trim {

class MergedWeights {
 public:
  // Both must outlive this object.
  MergedWeights(const model::ModelReader& reader, const MergedExperts& experts)
      : reader_(reader), experts_(experts) {}

  // `id` names a weight of the merged model: of an expert, or the constants,
  // [E, H] fp32. Experts are averaged by the tokens that chose them, and
  // equally where none did.
  at::Tensor tensor(const model::WeightId& id) const;

 private:
  std::vector<double> shares(
      std::int64_t layer, const ExpertGroup& group) const;
  std::vector<double> ratios(
      std::int64_t layer, const ExpertGroup& group) const;
  void merge(std::int64_t layer, std::int64_t place) const;
  at::Tensor constants(std::int64_t layer) const;

  const model::ModelReader& reader_;
  const MergedExperts& experts_;
  // The layer that was merged last: its experts are asked for role by role.
  mutable std::int64_t layer_ = -1;
  mutable std::vector<ExpertTensors> merged_;
};

}  // namespace fettle::trim
