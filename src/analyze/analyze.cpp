// SPDX-License-Identifier: Apache-2.0
#include "analyze/analyze.h"

#include <fmt/format.h>

#include <algorithm>
#include <memory>
#include <set>
#include <utility>

#include "analyze/base_statistics.h"
#include "analyze/calibration.h"
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

void check_finite(
    const artifact::LayerScores& layer,
    std::int64_t index,
    const std::string& name,
    const at::Tensor& values) {
  const at::Tensor bad = at::isfinite(values).logical_not();
  if (!bad.any().item<bool>()) return;
  const auto first = bad.to(at::kLong).argmax().item<std::int64_t>();
  std::int64_t expert = first;
  if (values.numel() != layer.num_experts() || layer.neuron.contains(name)) {
    const auto offsets = neuron_offsets(layer.widths);
    expert = std::ranges::upper_bound(offsets, first) - offsets.begin() - 1;
  }
  throw UserError(
      "analyze",
      fmt::format("layer {}, expert {}", index, expert),
      fmt::format(
          "score {} is not finite; check the model's weights, or compute in "
          "fp32",
          name));
}

artifact::LayerScores collect(
    const BaseStatistics& base,
    const std::vector<ActiveScore>& scores,
    std::int64_t index) {
  artifact::LayerScores layer = base.layer(index);
  if (layer.widths.empty()) return layer;
  for (const ActiveScore& score : scores) {
    const std::string name(score.method->name);
    at::Tensor values = score.observer->score(index);
    auto& into =
        score.method->unit == Unit::kNeuron ? layer.neuron : layer.expert;
    into[name] = std::move(values);
    check_finite(layer, index, name, into[name]);
  }
  check_finite(layer, index, "mean_h", layer.mean_h);
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
  std::int64_t widest = 0;
  for (const model::LayerConfig& layer : config.layers) {
    neurons += layer.total_width();
    widest = std::max(widest, layer.total_width());
  }
  // fp64 sums, their fp32 copy at the end, and the mean of h.
  std::int64_t bytes = 12 * neurons;
  for (const std::string& name : scores) {
    const ScoreMethod& method = find_score(name);
    if (method.unit == Unit::kNeuron) bytes += 12 * neurons;
    if (method.needs_gradient_batches) {
      bytes += 3 * 4 * config.hidden_size * widest;
    }
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

  BaseStatistics base(config);
  std::vector<sweep::Observer*> forward{&base};
  for (ActiveScore& score : scores) forward.push_back(score.observer.get());

  artifact::ScoreFile file;
  std::int64_t loss_tokens = 0;
  const std::vector<std::size_t> starts = chunk_starts(data, cut);
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
    file.layers.push_back(collect(base, scores, l));
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
