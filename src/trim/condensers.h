// SPDX-License-Identifier: Apache-2.0
// Condensers: experts that every token of a layer passes, whatever the router
// says. They are chosen before a trim, which must spare them.
#pragma once

#include <cstdint>
#include <vector>

#include "artifact/score_file.h"
#include "artifact/trim_plan.h"
#include "core/json.h"
#include "model/model_config.h"
#include "model/model_reader.h"

namespace fettle::trim {

// By layer, ascending experts; empty: none in any layer.
using Condensers = std::vector<std::vector<std::int64_t>>;

// From the key "condensers", [[experts of layer 0], ..], of the model's
// config.json, else of its fettle.json, else of the scores' "run". Throws
// UserError when it names experts that the model has not.
Condensers find_condensers(
    const model::ModelReader& reader, const artifact::ScoreFile& scores);

// As find_condensers, of one JSON value; `subject` names it in errors.
Condensers parse_condensers(
    const Json& json,
    const model::ModelConfig& config,
    const std::string& subject);

// The same experts by their numbers after the trim.
Condensers renumbered(
    const Condensers& condensers, const artifact::TrimPlan& plan);

// Renumbers the key "condensers" of `json`, where there is one.
void renumber_condensers(Json& json, const artifact::TrimPlan& plan);

}  // namespace fettle::trim
