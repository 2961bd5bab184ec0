// SPDX-License-Identifier: Apache-2.0
// Plans a trim: which neurons or experts stay, from scores, configuration and
// options alone. No weight is read.
#pragma once

#include <cstdint>
#include <optional>
#include <string>

#include "artifact/score_file.h"
#include "artifact/trim_plan.h"
#include "model/model_config.h"
#include "model/model_reader.h"

namespace fettle::trim {

// What competes for being kept: the neurons of one expert, of one layer, or of
// the whole model. Whole experts compete within a layer at least.
enum class Scope { kExpert, kLayer, kGlobal };
enum class Unit { kNeuron, kExpert };
// How scores are made comparable between layers: as they are, their square
// root, or divided by their layer's mean.
enum class Normalise { kNone, kSqrt, kLayerMean };

// Bytes of a model on disk, by what a plan can change.
struct ModelBytes {
  std::int64_t fixed = 0;       // all that no plan cuts
  std::int64_t per_neuron = 0;  // the most that one neuron takes
  std::int64_t per_expert = 0;  // router row, and constant where asked for
};

struct ModelBytesOptions {
  // Whether a constant output is going to be stored for every expert.
  bool constants = false;
};

ModelBytes model_bytes(
    const model::ModelReader& reader, const ModelBytesOptions& options);

struct TrimOptions {
  // The score to rank by. A neuron score ranks whole experts by its sum.
  std::string score = "mask_fisher";
  Scope scope = Scope::kGlobal;
  Unit unit = Unit::kNeuron;
  // Share of the neurons (or experts) kept, in (0, 1]; or else `budget`.
  std::optional<double> keep = {};
  // Most bytes that the trimmed model's tensors may take.
  std::optional<std::int64_t> budget = {};
  // Where `budget` is given: the model's bytes.
  ModelBytes bytes = {};
  // Kept widths (or expert counts) are multiples of this, or everything.
  std::int64_t round = 1;
  // Fewest neurons that every expert keeps.
  std::int64_t min_width = 0;
  // Most neurons that an expert keeps; 0: no limit.
  std::int64_t max_width = 0;
  Normalise normalise = Normalise::kNone;
};

// The plan. The number kept comes as near to `keep` as `round` permits, and
// under a budget never above it; floors are always met. Whole experts keep at
// least top_k a layer, and equally many of each router group. Deterministic:
// ties go to the lower index.
// Throws UserError on scores of another shape, an unknown score or one of the
// other unit, values that are not finite, options out of range, and a keep or
// budget too small for the floors, naming the smallest that would do.
artifact::TrimPlan plan_trim(
    const artifact::ScoreFile& scores,
    const model::ModelConfig& config,
    const TrimOptions& options);

Json options_json(const TrimOptions& options);

// Throws UserError unless `scores` were made of this very model.
void require_scores_of(
    const model::ModelReader& reader, const artifact::ScoreFile& scores);

}  // namespace fettle::trim
