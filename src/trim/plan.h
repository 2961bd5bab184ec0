// SPDX-License-Identifier: Apache-2.0
// Plans a trim: which neurons or experts stay, from scores, configuration and
// options alone. No weight is read.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "artifact/score_file.h"
#include "artifact/trim_plan.h"
#include "model/family/model_config.h"
#include "model/weights/model_reader.h"
#include "trim/condensers.h"
#include "trim/stored.h"

namespace fettle::trim {

// What competes for being kept: the neurons of one expert, of one layer, or of
// the whole model. Whole experts compete within a layer at least.
enum class Scope { kExpert, kLayer, kGlobal };
// kMixed: experts go whole, router row and all, where that is cheaper than
// cutting neurons.
enum class TrimUnit { kNeuron, kExpert, kMixed };
// Which experts' widths must be equal, as far as there are neurons: those that
// compete keep the width at which the sum of what they keep is best. kUniform
// with unit kMixed: all layers keep one number of experts too.
enum class WidthRule { kFree, kPerLayer, kUniform };
// How scores are made comparable between layers: as they are, their square
// root, or divided by their layer's mean.
enum class Normalise { kNone, kSqrt, kLayerMean };

// Bytes of a model on disk, by what a plan can change. Heads that predict
// further tokens count as they are, though some may be cut along.
struct ModelBytes {
  std::int64_t fixed = 0;       // all that no plan cuts
  std::int64_t per_neuron = 0;  // the most that one neuron takes
  std::int64_t per_expert = 0;  // router row, and constant where asked for
};

struct ModelBytesOptions {
  // Whether a constant output is going to be stored for every expert.
  bool constants = false;
  Stored stored = Stored::kPlain;
};

ModelBytes model_bytes(
    const model::ModelReader& reader, const ModelBytesOptions& options);

struct TrimOptions {
  // The score to rank by. A neuron score ranks whole experts by its sum.
  std::string score = "obs";
  Scope scope = Scope::kGlobal;
  TrimUnit unit = TrimUnit::kNeuron;
  // Share of the neurons (or experts) kept, in (0, 1]; or else `budget`.
  std::optional<double> keep = {};
  // Most bytes that the trimmed model's tensors may take.
  std::optional<std::int64_t> budget = {};
  // Where `budget` is given, or the unit is kMixed: the model's bytes.
  ModelBytes bytes = {};
  // Kept widths (or expert counts) are multiples of this, or everything.
  std::int64_t round = 1;
  // Neurons are kept and cut in blocks of so many neighbours, ranked by their
  // mean; what an expert has beyond whole blocks goes first. `round` is a
  // multiple of it.
  std::int64_t block = 1;
  // Fewest neurons that every expert keeps.
  std::int64_t min_width = 0;
  // Most neurons that an expert keeps; 0: no limit.
  std::int64_t max_width = 0;
  Normalise normalise = Normalise::kNone;
  WidthRule widths = WidthRule::kFree;
  // What a neuron costs to keep: at 0 its bytes alone, all alike; at 1 the
  // products of the tokens that pass it, relative to the mean neuron; between,
  // the mixture. Scores count by this cost, so that experts which many tokens
  // choose lose neurons too. Of unit kNeuron in widths that are free.
  double price_tokens = 0;
  // Unit kMixed: what an expert that goes whole is taken to cost, relative to
  // the sum of its neurons' scores. Below 1, since its tokens' next best
  // experts make up for a part of it, which neurons that go can't count on: on
  // a model of 32 experts by score obs, 0.5 to 0.7 lost the least.
  double exchange_rate = 0.7;
  // Experts, by layer, that are never removed and keep condenser_width neurons.
  Condensers condensers = {};
  std::int64_t condenser_width = 0;
};

// The plan. The number kept comes as near to `keep` as `round` permits, and
// under a budget never above it; floors are always met. Whole experts keep at
// least top_k a layer, and equally many of each router group. Deterministic:
// ties go to the lower index.
// Throws UserError on scores of another shape, an unknown score or one of the
// other unit, values that are not finite or all zero, options out of range, and
// a keep or budget too small for the floors, naming the smallest that would do.
artifact::TrimPlan plan_trim(
    const artifact::ScoreFile& scores,
    const model::ModelConfig& config,
    const TrimOptions& options);

// Throws UserError on options out of range or that don't go together.
void check_trim_options(const TrimOptions& options);

Json options_json(const TrimOptions& options);

// What to rank by where nobody said: obs, or without it the only score there
// is. Throws UserError naming the scores where there are several others.
std::string default_score(const artifact::ScoreFile& scores);
std::string default_score(const std::vector<std::string>& found);

// Throws UserError unless `scores` were made of this very model.
void require_scores_of(
    const model::ModelReader& reader, const artifact::ScoreFile& scores);

// Throws UserError unless `plan` was made for this very model and fits it.
void require_plan_of(
    const model::ModelReader& reader, const artifact::TrimPlan& plan);

}  // namespace fettle::trim
