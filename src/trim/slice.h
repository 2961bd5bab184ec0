// SPDX-License-Identifier: Apache-2.0
// Carries a trim plan out: writes the model with the kept rows and columns of
// every tensor, in the type they are stored in. One tensor is held at a time.
#pragma once

#include <filesystem>

#include "artifact/model_writer.h"
#include "artifact/score_file.h"
#include "artifact/trim_plan.h"
#include "core/progress.h"
#include "model/model_reader.h"

namespace fettle::trim {

// What makes up for cut neurons. Constant: their mean output over the
// calibration tokens, down_proj[:, P] mean(h_P), is added to the expert's
// output y before the router weighs it.
enum class Repair { kNone, kConstant };

struct TrimRunOptions {
  Repair repair = Repair::kNone;
  // Told of every byte written; null: silent.
  Reporter* reporter = nullptr;
};

struct TrimResult {
  artifact::ModelSize before;
  artifact::ModelSize after;
  Json to_json() const;  // {"before": {…}, "after": {…}}
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
    Repair repair);

// Writes the trimmed model and trim_plan.json into `folder`, which exists.
// Throws UserError, before anything is written, when plan or scores are another
// model's, or the repair lacks mean activations.
TrimResult trim_model(
    const model::ModelReader& reader,
    const artifact::TrimPlan& plan,
    const artifact::ScoreFile& scores,
    const TrimRunOptions& options,
    const std::filesystem::path& folder);

}  // namespace fettle::trim
