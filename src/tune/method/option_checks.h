// SPDX-License-Identifier: Apache-2.0
// Whether the options of a run make sense, together and for a model.
#pragma once

#include "model/family/model_config.h"
#include "tune/options/tune_options.h"

namespace fettle::tune {

// Throws UserError naming the option when a method is not known or not to be
// joined with another, a value is impossible, an option was given that no
// chosen method reads, or the model has no expert to tune or is too short for
// seq_len.
void check_options(
    const TuneOptions& options, const model::ModelConfig& config);

// Throws UserError when an option needs held-out data and there is none, or
// evaluations between the first step and the last.
void check_evaluation(const TuneOptions& options, bool has_held_out);

}  // namespace fettle::tune
