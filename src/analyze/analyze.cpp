// SPDX-License-Identifier: Apache-2.0
#include "analyze/analyze.h"

#include <fmt/format.h>

#include <algorithm>
#include <memory>
#include <set>
#include <utility>

#include "analyze/base_statistics.h"
#include "analyze/calibration.h"
#include "analyze/finish.h"
#include "analyze/score_method.h"
#include "core/error.h"
#include "io/checksum.h"
#include "sweep/micro_batches.h"

namespace fettle::analyze {
namespace {

struct ActiveScore {
  const ScoreMethod* method;
  std::unique_ptr<ScoreObserver> observer;
};

std::vector<ActiveScore> make_scores(
    const model::ModelConfig& config, const AnalyzeOptions& options) {
  std::vector<ActiveScore> scores;
  std::set<std::string> seen;
  for (const std::string& name : options.scores) {
    const ScoreMethod& method = find_score(name);
    if (!seen.insert(name).second) continue;
    scores.push_back({&method, method.make({config, options.seed})});
  }
  return scores;
}

void check_input(
    const model::ModelConfig& config,
    const std::vector<model::Sequence>& data) {
  const bool sparse = std::ranges::any_of(
      config.layers, [](const model::LayerConfig& l) { return l.sparse; });
  if (!sparse) {
    throw UserError(
        "analyze",
        config.family,
        "expected a model with experts, found none in any layer");
  }
  const bool any = std::ranges::any_of(
      data, [](const model::Sequence& s) { return !s.ids.empty(); });
  if (!any) {
    throw UserError(
        "analyze",
        "data",
        "expected at least one token of calibration data, found none: no "
        "expert can be hit");
  }
}

void check_chunks(const std::vector<ActiveScore>& scores) {
  for (const ActiveScore& score : scores) {
    if (!score.method->needs_one_chunk) continue;
    throw UserError(
        "analyze",
        score.method->name,
        "expected all tokens in one chunk, found several: the score needs all "
        "tokens of a layer at once; raise --chunk-tokens, or lower --tokens");
  }
}

// Runs the sweeps over one chunk; returns its scored tokens.
std::int64_t sweep_chunk(
    model::CausalLm& model,
    const CalibrationChunk& chunk,
    std::vector<ActiveScore>& scores,
    std::span<sweep::Observer* const> forward,
    const AnalyzeOptions& options) {
  const std::int64_t loss_tokens = sweep::loss_tokens(chunk.micro_batches);
  std::vector<sweep::Observer*> backward;
  for (ActiveScore& score : scores) {
    score.observer->begin_sweeps(chunk.batches);
    if (score.method->needs_backward) backward.push_back(score.observer.get());
  }
  sweep::Sweep sweep(model, chunk.micro_batches, options.sweep);
  sweep.forward(forward, {.keep_boundaries = !backward.empty()});
  if (!backward.empty()) {
    sweep.token_nll_with_gradient(1.0);
    sweep.backward(backward);
  }
  return loss_tokens;
}

artifact::LayerScores collect(
    const model::ModelConfig& config,
    const BaseStatistics& base,
    const std::vector<ActiveScore>& scores,
    std::int64_t index) {
  artifact::LayerScores layer;
  layer.widths = config.layers[index].expert_widths;
  if (layer.widths.empty()) return layer;
  put_sums(layer, kBase, base.sums(index));
  std::vector<std::string> names;
  for (const ActiveScore& score : scores) {
    names.emplace_back(score.method->name);
    put_sums(layer, names.back(), score.observer->sums(index));
  }
  finish_layer(layer, names, index);
  return layer;
}

}  // namespace

bool needs_backward(const std::vector<std::string>& scores) {
  return std::ranges::any_of(scores, [](const std::string& name) {
    return find_score(name).needs_backward;
  });
}

std::int64_t analyze_bytes(
    const model::ModelConfig& config, const std::vector<std::string>& scores) {
  std::int64_t neurons = 0;
  for (const model::LayerConfig& layer : config.layers) {
    neurons += layer.total_width();
  }
  // fp64 sums, and the fp32 scores and means made of them.
  std::int64_t bytes = 12 * neurons;
  for (const std::string& name : scores) {
    const ScoreMethod& method = find_score(name);
    bytes += 8 * method.neuron_sums * neurons;
    if (method.unit == Unit::kNeuron) bytes += 4 * neurons;
    if (method.layer_bytes != nullptr) bytes += method.layer_bytes(config);
  }
  return bytes;
}

artifact::ScoreFile analyze(
    model::CausalLm& model,
    const std::vector<model::Sequence>& data,
    const AnalyzeOptions& options) {
  const model::ModelConfig& config = model.config();
  std::vector<ActiveScore> scores = make_scores(config, options);
  check_input(config, data);
  const bool batched = std::ranges::any_of(scores, [](const ActiveScore& s) {
    return s.method->needs_gradient_batches;
  });
  const CalibrationOptions cut{
      .micro_batch_tokens = options.micro_batch_tokens,
      .batch_sequences = batched ? options.batch_sequences : 0,
      .chunk_tokens = options.chunk_tokens,
      .vocab_size = config.vocab_size};

  BaseStatistics base({config});
  std::vector<sweep::Observer*> forward{&base};
  for (ActiveScore& score : scores) forward.push_back(score.observer.get());

  artifact::ScoreFile file;
  std::int64_t loss_tokens = 0;
  const std::vector<std::size_t> starts = chunk_starts(data, cut);
  if (starts.size() > 2) check_chunks(scores);
  for (std::size_t c = 0; c + 1 < starts.size(); ++c) {
    const CalibrationChunk chunk =
        make_chunk(data, starts[c], starts[c + 1], cut);
    file.tokens += chunk.tokens;
    loss_tokens += sweep_chunk(model, chunk, scores, forward, options);
  }
  if (loss_tokens == 0 && needs_backward(options.scores)) {
    throw UserError(
        "analyze",
        "data",
        "expected at least one scored token, found none: a gradient score "
        "needs sequences of two tokens or more with labels");
  }
  for (std::int64_t l = 0; l < config.num_layers(); ++l) {
    file.layers.push_back(collect(config, base, scores, l));
  }
  file.model_fingerprint = io::fingerprint(
      model.reader().checkpoint(), model.reader().folder() / "config.json");
  file.run = options.run;
  file.run["scores"] = options.scores;
  file.run["batch_sequences"] = options.batch_sequences;
  file.run["seed"] = options.seed;
  file.run["sequences"] = data.size();
  file.run["loss_tokens"] = loss_tokens;
  return file;
}

}  // namespace fettle::analyze
