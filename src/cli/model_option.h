// SPDX-License-Identifier: Apache-2.0
// MODEL and other options that name a model, as commands take them, and what
// is reported of a model's folder.
#pragma once

#include <CLI/CLI.hpp>
#include <string>

#include "core/progress.h"
#include "model/weights/model_reader.h"
#include "model/weights/weight_values.h"

namespace fettle::cli {

// Adds MODEL, which mark_paths has resolved.
CLI::Option* add_model_option(CLI::App& app, std::string& model);

// The Hugging Face cache's folder of a model becomes the snapshot in it.
// Returns an empty text, as validators of CLI11 do. Throws UserError on the
// unfinished output of a run.
std::string resolve_model(std::string& folder);

// Reads every weight, with progress named `label`. Throws UserError on damage,
// see weight_values.h.
model::WeightValues checked_values(
    const model::ModelReader& reader, Reporter& reporter, std::string label);

// "weights left out, ..." for what lies beside a model's weights and changes
// nothing; empty where nothing does.
std::string left_out_text(const model::ModelReader& reader);

}  // namespace fettle::cli
