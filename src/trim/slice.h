// SPDX-License-Identifier: Apache-2.0
// Carries a trim plan out: writes the model with the kept rows and columns of
// every tensor, in the type they are stored in. One tensor is held at a time,
// and under the ridge repair one layer.
#pragma once

#include <filesystem>
#include <optional>
#include <vector>

#include "artifact/model_writer.h"
#include "artifact/score_file.h"
#include "artifact/trim_plan.h"
#include "core/progress.h"
#include "model/weights/model_reader.h"
#include "trim/merge_plan.h"
#include "trim/repair.h"
#include "trim/repair_sweep.h"
#include "trim/stored.h"

namespace fettle::trim {

// The calibration data that the ridge repair sweeps over.
struct RidgeInput {
  model::CausalLm& model;  // with the reader that is trimmed
  std::vector<model::TokenBatch> data;
  RidgeOptions options = {};
};

struct TrimRunOptions {
  Repair repair = Repair::kNone;
  // kKeep: of a plan that why_not_kept (kept_blocks.h) has nothing against.
  Stored stored = Stored::kPlain;
  // Needed by repair constant: mean activations of this model.
  const artifact::ScoreFile* scores = nullptr;
  // Needed by repair ridge. Where it divides the data among ranks, rank 0 alone
  // writes.
  const RidgeInput* ridge = nullptr;
  // Experts that take in those that go, of a plan by plan_merge; with repair
  // none.
  const MergedExperts* merged = nullptr;
  // What to do with heads that predict further tokens.
  artifact::Mtp mtp = artifact::Mtp::kAuto;
  // Told of every byte written; null: silent.
  Reporter* reporter = nullptr;
};

struct TrimResult {
  artifact::ModelSize before;
  artifact::ModelSize after;
  std::optional<RepairReport> repair = {};  // of the ridge repair
  Json to_json() const;  // {"before": {…}, "after": {…}, "repair": {…}}
};

// The configuration of the trimmed model. A layer has constants where it had
// them before, or where neurons are cut and the repair makes them.
model::ModelConfig trimmed_config(
    const model::ModelConfig& config,
    const artifact::TrimPlan& plan,
    Repair repair);

// The size of the model before and after `plan`; writes nothing.
TrimResult trimmed_size(
    const model::ModelReader& reader,
    const artifact::TrimPlan& plan,
    Repair repair,
    Stored stored = Stored::kPlain,
    artifact::Mtp mtp = artifact::Mtp::kAuto);

// Writes the trimmed model and trim_plan.json into `folder`, which exists.
// Throws UserError, before anything is written, when the plan is another
// model's, or the repair lacks what it needs.
TrimResult trim_model(
    const model::ModelReader& reader,
    const artifact::TrimPlan& plan,
    const TrimRunOptions& options,
    const std::filesystem::path& folder);

}  // namespace fettle::trim
