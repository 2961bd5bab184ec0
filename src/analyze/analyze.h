// SPDX-License-Identifier: Apache-2.0
// Scores every intermediate dimension and every expert of a model on
// calibration data: one forward sweep, and one backward sweep when a score asks
// for it, whatever the number of scores.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "artifact/score_file.h"
#include "model/causal_lm.h"
#include "model/packed_tokens.h"
#include "sweep/sweep.h"

namespace fettle::analyze {

struct AnalyzeOptions {
  // Names of the scores to compute (see score_method.h).
  std::vector<std::string> scores = {"mask_fisher"};
  // Tokens that pass through a layer together.
  std::int64_t micro_batch_tokens = 4096;
  // Sequences whose gradient is one batch's, for grad_abs.
  std::int64_t batch_sequences = 8;
  // Tokens swept at a time; sums carry over. 0: all at once.
  std::int64_t chunk_tokens = 0;
  // Of the random score.
  std::uint64_t seed = 0;
  sweep::SweepOptions sweep = {};
  // Kept in the score file with the options, such as the data files' names.
  Json run = Json::object();
};

// Whether any of the scores needs a backward sweep. Throws UserError on an
// unknown name.
bool needs_backward(const std::vector<std::string>& scores);

// Bytes of RAM that the analysis keeps beside the sweep's own.
std::int64_t analyze_bytes(
    const model::ModelConfig& config, const std::vector<std::string>& scores);

// The scores of `model` on `data`. The result is the same bits for the same
// data, options and build. Throws UserError when a score is unknown, the model
// has no experts, the data is empty, no position is scored though a gradient is
// needed, or a score is not finite (naming layer and expert).
artifact::ScoreFile analyze(
    model::CausalLm& model,
    const std::vector<model::Sequence>& data,
    const AnalyzeOptions& options);

}  // namespace fettle::analyze
