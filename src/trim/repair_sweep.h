// SPDX-License-Identifier: Apache-2.0
// The ridge repair of a whole model: one sweep over calibration data, layer by
// layer, that holds the moments of one layer at a time.
#pragma once

#include <ATen/ATen.h>

#include <cstdint>
#include <optional>
#include <vector>

#include "artifact/trim_plan.h"
#include "core/json.h"
#include "model/causal_lm.h"
#include "model/layers/token_batch.h"
#include "sweep/layer_stream.h"
#include "sweep/plan.h"
#include "trim/expert_moments.h"
#include "trim/repair.h"

namespace fettle::trim {

// What replaces the sliced weights of a layer, by the plan's experts.
struct RepairedLayer {
  std::vector<at::Tensor> down;  // [H, S] as stored; undefined: as sliced
  at::Tensor constant;           // [E, H] fp32, to be added, or undefined
};

// What the repair did, for people.
struct RepairReport {
  std::int64_t tokens = 0;
  std::int64_t refitted = 0;  // experts with new weights
  std::int64_t scarce = 0;    // of these: fewer tokens than kept neurons
  std::int64_t unhit = 0;     // experts that lost neurons, but saw no token
  // By layer, the share of the squared output error of slicing that is left; 0
  // where nothing was cut.
  std::vector<double> error_left = {};

  Json to_json() const;
};

class RepairSweep {
 public:
  // All but `data` must outlive the sweep. `trimmed` is the configuration of
  // the trimmed model. Throws UserError when the data is empty.
  RepairSweep(
      model::CausalLm& model,
      const artifact::TrimPlan& plan,
      const model::ModelConfig& trimmed,
      const std::vector<model::TokenBatch>& data,
      const RidgeOptions& options);

  // The repaired `layer`. Layers must be asked for in ascending order, though
  // not all. The tokens pass through the layers up to it.
  const RepairedLayer& layer(std::int64_t layer);

  const RepairReport& report() const { return report_; }

 private:
  void pass_layer(std::int64_t layer, bool last);
  void pass_layer_jointly(std::int64_t layer, bool last);
  void refit_jointly(std::int64_t layer, const model::LayerWeights& cut);
  // The moments of the plan's expert i are those of expert slots[i].
  // Throws UserError naming the layer unless a sum over its activations is.
  static void require_finite(std::int64_t layer, double sum);
  void refit_layer(
      std::int64_t layer,
      ExpertMoments& moments,
      const std::vector<std::int64_t>& slots);
  void refit_expert(
      std::int64_t layer,
      std::size_t place,
      const Moments& moments,
      double lambda);
  bool needs_moments(std::int64_t layer, std::size_t place) const;
  model::LayerWeights repaired_weights(
      std::int64_t layer, const model::LayerWeights& whole) const;

  model::CausalLm& model_;
  const artifact::TrimPlan& plan_;
  const model::ModelConfig& trimmed_;
  RidgeOptions options_;
  sweep::LayerStream stream_;  // behind trimmed layers, if so asked for
  std::optional<sweep::LayerStream> original_;  // of a joint repair
  std::int64_t next_ = 0;
  RepairedLayer current_;
  RepairReport report_;
  double error_before_ = 0, error_after_ = 0;  // of the layer in work
};

// What the repair of a model to `plan` takes: on the device the sums over
// tokens of one layer, and its cut copy.
sweep::StageMemory repair_memory(
    const model::ModelReader& reader,
    const artifact::TrimPlan& plan,
    const RidgeOptions& options);

}  // namespace fettle::trim
