// SPDX-License-Identifier: Apache-2.0
// The tensors of a trimmed model, each made when asked for from the untrimmed
// one.
#pragma once

#include <ATen/ATen.h>

#include <functional>

#include "artifact/score_file.h"
#include "artifact/trim_plan.h"
#include "model/weights/model_reader.h"
#include "trim/merged_weights.h"
#include "trim/repair_sweep.h"
#include "trim/stored.h"

namespace fettle::trim {

// The type in which a layer's constants are written: fp32 where only Fettle
// reads them, else as the model stores its experts' biases.
at::ScalarType constant_type(
    const model::ModelConfig& config,
    const model::WeightId& id,
    const std::function<at::ScalarType(const model::WeightId&)>& stored);

class SlicedWeights {
 public:
  // What makes up for what is cut: mean activations for constants, a sweep for
  // fitted weights, experts that take in those that go, or nothing; and in
  // which form coded weights are written.
  struct Making {
    const artifact::ScoreFile* means = nullptr;
    RepairSweep* sweep = nullptr;
    const MergedWeights* merged = nullptr;
    Stored stored = Stored::kPlain;
  };

  // All must outlive this object.
  SlicedWeights(
      const model::ModelReader& reader,
      const artifact::TrimPlan& plan,
      const Making& making);

  // `id` names a weight of the trimmed model. Under a sweep, layers must be
  // asked for in ascending order.
  // A packed weight stays packed (see packed_slices.h), unless experts are
  // merged: their values are written in fp32. One that another tool coded stays
  // so where it is kept (see kept_blocks.h).
  model::WeightForm form(const model::WeightId& id) const;
  at::Tensor tensor(const model::WeightId& id) const;

 private:
  // Whether the weight is that of the whole model, as stored.
  bool stays(const model::WeightId& id) const;
  model::WeightId source(const model::WeightId& id) const;
  // Whether the weight is cut and packed.
  bool repacks(const model::WeightId& id) const;
  // Whether it is written in blocks as it was stored.
  bool keeps_blocks(const model::WeightId& id) const;
  // The neurons that stay of the expert of `id`; null where none is cut.
  const std::vector<std::int64_t>* cut(const model::WeightId& id) const;
  at::Tensor repacked(const model::WeightId& id) const;
  at::Tensor expert_rows(const model::WeightId& id) const;
  at::Tensor constants(std::int64_t layer) const;
  // down_proj[:, P] mean(h_P), P the neurons that `expert` loses: [H] fp32.
  at::Tensor lost_mean(
      std::int64_t layer, const artifact::ExpertPlan& expert) const;

  const model::ModelReader& reader_;
  const artifact::TrimPlan& plan_;
  Making repairs_;
};

}  // namespace fettle::trim
