// SPDX-License-Identifier: Apache-2.0
// Scores every intermediate dimension and every expert of a model on
// calibration data: one forward sweep, and one backward sweep when a score asks
// for it, whatever the number of scores. Data that is swept in several chunks
// gives the same scores up to rounding.
#pragma once

#include <cstdint>
#include <filesystem>
#include <string>
#include <vector>

#include "artifact/row_prices.h"
#include "artifact/score_file.h"
#include "model/causal_lm.h"
#include "model/layers/token_batch.h"
#include "sweep/plan.h"
#include "sweep/sweep.h"

namespace fettle::analyze {

struct AnalyzeOptions {
  // Names of the scores to compute (see score_method.h).
  std::vector<std::string> scores = {"obs"};
  // Tokens that pass through a layer together.
  std::int64_t micro_batch_tokens = 4096;
  // Sequences whose gradient is one batch's, for grad_abs.
  std::int64_t batch_sequences = 8;
  // Tokens swept at a time; sums carry over. 0: all at once.
  std::int64_t chunk_tokens = 0;
  // chunk_tokens came from what the budget allows: a resumed run keeps to the
  // chunks it began with, whatever the budget now.
  bool chunks_by_budget = false;
  // Keep what obs is made of, so that it merges and resumes as others do: see
  // kept_moment_bytes.
  bool keep_moments = false;
  // Seed of the random score.
  std::uint64_t seed = 0;
  // Where the sums are kept after each chunk but the last; empty: nowhere.
  std::filesystem::path state_folder = {};
  // Go on from what state_folder holds.
  bool resume = false;
  sweep::SweepOptions sweep = {};
  // Kept in the score file with the options, such as the data files' names.
  Json run = Json::object();
};

// Whether any of the scores needs a backward sweep, or all tokens of a layer in
// one sweep. Throw UserError on an unknown name.
bool needs_backward(const std::vector<std::string>& scores);
bool needs_one_chunk(const std::vector<std::string>& scores);
// Whether any of them looks at more than the weights.
bool reads_data(const std::vector<std::string>& scores);
// What takes the place of data for scores that read none: one token, which a
// file of scores does not mention (see without_tokens).
std::vector<model::Sequence> no_data();
void without_tokens(artifact::ScoreFile& scores);

// Bytes of RAM that the analysis keeps beside the sweep's own.
std::int64_t analyze_bytes(
    const model::ModelConfig& config, const std::vector<std::string>& scores);

// Bytes that obs' moments of all layers take too, in RAM and in the scores'
// file, when they are kept.
std::int64_t kept_moment_bytes(
    const model::ModelConfig& config, const std::vector<std::string>& scores);

// The most bytes of analyze_bytes that lie on the device with a layer in use.
std::int64_t analyze_layer_bytes(
    const model::ModelConfig& config, const std::vector<std::string>& scores);

// Tokens of a chunk, for data whose activations don't fit into the RAM of
// `plan`: as many as do fit, if reading `weight_bytes` of weights again for
// each chunk moves less than spilling. 0: all at once.
std::int64_t chunk_tokens_within(
    const sweep::SweepPlan& plan, std::int64_t weight_bytes);

// The scores of `model` on `data`. The result is the same bits for the same
// data, options and build, resumed or not. Throws UserError when a score is
// unknown, the model has no experts, the data is empty, no position is scored
// though a gradient is needed, a score that needs one chunk meets several, a
// score is not finite (naming layer and expert), or a run is resumed with
// another model, data or options. Where the sweep's data is divided among
// ranks, rank 0 has the scores, and the others have none.
artifact::ScoreFile analyze(
    model::CausalLm& model,
    const std::vector<model::Sequence>& data,
    const AnalyzeOptions& options);

struct PricedScores {
  artifact::ScoreFile scores;
  artifact::RowPrices prices;
};

// The same for targets that the model draws itself, by the seed: scores are
// then of its own expected loss, the KL. Also measures, in the same sweeps,
// what errors in each matrix cost. Also throws where a sweep can't take all
// tokens at once, and where no score needs a backward sweep.
PricedScores analyze_with_prices(
    model::CausalLm& model,
    const std::vector<model::Sequence>& data,
    const AnalyzeOptions& options);

// Bytes of RAM that the prices take, beside analyze_bytes.
std::int64_t price_bytes(const model::ModelConfig& config);

}  // namespace fettle::analyze
