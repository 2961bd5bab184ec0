// SPDX-License-Identifier: Apache-2.0
#include "analyze/analyze.h"

#include <fmt/format.h>

#include <algorithm>
#include <optional>
#include <utility>

#include "analyze/calibration.h"
#include "analyze/row_prices.h"
#include "analyze/score_set.h"
#include "artifact/manifest.h"
#include "artifact/run_state.h"
#include "artifact/shared_state.h"
#include "core/error.h"
#include "ranks/group.h"
#include "sweep/data.h"
#include "sweep/micro_batches.h"

namespace fettle::analyze {
namespace {

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

enum class Targets { kData, kDrawn };

class Analysis {
 public:
  Analysis(
      model::CausalLm& model,
      const std::vector<model::Sequence>& data,
      const AnalyzeOptions& options,
      Targets targets = Targets::kData)
      : model_(model),
        data_(data),
        options_(options),
        team_(options.sweep.team),
        scores_(
            {model.config(), options.seed, options.keep_moments, team_},
            options.scores),
        cut_{
            .micro_batch_tokens = options.micro_batch_tokens,
            .batch_sequences =
                scores_.needs_gradient_batches() ? options.batch_sequences : 0,
            .chunk_tokens = options.chunk_tokens,
            .vocab_size = model.config().vocab_size} {
    check_input(model.config(), data);
    fingerprint_ = model.reader().fingerprint();
    checksum_ = sweep::checksum(data);
    if (targets == Targets::kDrawn) {
      FETTLE_ASSERT(!team_.divides());
      prices_.emplace(model.config());
    }
  }

  artifact::ScoreFile run() {
    const std::int64_t done = options_.resume ? restore() : 0;
    const std::vector<std::size_t> starts = chunk_starts(data_, cut_);
    const auto chunks = static_cast<std::int64_t>(starts.size()) - 1;
    if (chunks > 1) check_chunks();
    for (std::int64_t c = done; c < chunks; ++c) {
      if (chunks > 1) note(fmt::format("chunk {} of {}", c + 1, chunks));
      sweep_chunk(make_shards(data_, {starts[c], starts[c + 1]}, cut_, team_));
      if (c + 1 < chunks) save(c + 1);
    }
    if (loss_tokens_ == 0 && scores_.needs_backward()) {
      throw UserError(
          "analyze",
          "data",
          "expected at least one scored token, found none: a gradient score "
          "needs sequences of two tokens or more with labels");
    }
    return team_.leads() ? file() : artifact::ScoreFile{};
  }

  // What a run with drawn targets measured.
  artifact::RowPrices prices() const {
    artifact::RowPrices prices = prices_->prices(loss_tokens_);
    prices.model_fingerprint = fingerprint_;
    return prices;
  }

 private:
  void note(const std::string& text) const {
    if (options_.sweep.reporter != nullptr) options_.sweep.reporter->note(text);
  }

  std::int64_t over_ranks(std::int64_t value) const {
    return team_.group == nullptr ? value : ranks::sum(*team_.group, value);
  }

  void check_chunks() const {
    const std::string_view score =
        prices_ ? "prices" : scores_.needs_one_chunk();
    if (score.empty()) return;
    throw UserError(
        "analyze",
        score,
        "expected all tokens in one chunk, found several: the score needs all "
        "tokens of a layer at once; give --keep-moments, or leave out "
        "--chunk-tokens (what RAM can't hold then waits on disk)");
  }

  void sweep_chunk(const CalibrationChunk& chunk) {
    tokens_ += over_ranks(chunk.tokens);
    loss_tokens_ += over_ranks(sweep::loss_tokens(chunk.micro_batches));
    scores_.begin_sweeps(chunk.batches);
    sweep::SweepOptions sweep_options = options_.sweep;
    sweep_options.shard_ends = chunk.shard_ends;
    sweep::Sweep sweep(model_, chunk.micro_batches, sweep_options);
    sweep.forward(
        scores_.forward(), {.keep_boundaries = scores_.needs_backward()});
    if (!scores_.needs_backward()) return;
    if (!prices_) {
      sweep.token_nll_with_gradient(1.0);
      sweep.backward(scores_.backward());
      return;
    }
    sweep::Observer* const prices = &*prices_;
    sweep.drawn_nll_with_gradient(options_.seed, std::span(&prices, 1));
    std::vector<sweep::Observer*> all(
        scores_.backward().begin(), scores_.backward().end());
    all.push_back(prices);
    sweep.backward(all);
  }

  // What a resumed run must share with the run that saved the state.
  Json identity() const {
    Json same = options_.run;
    same.erase("model");  // its name; the fingerprint identifies the model
    same["scores"] = options_.scores;
    same["seed"] = options_.seed;
    same["keep_moments"] = options_.keep_moments;
    if (team_.shards > 1) same["shards"] = team_.shards;
    same["batch_sequences"] = cut_.batch_sequences;
    same["chunk_tokens"] = options_.chunks_by_budget
                               ? Json("by budget")
                               : Json(options_.chunk_tokens);
    return {
        {"model", fingerprint_},
        {"options", std::move(same)},
        {"sequences", checksum_},
        {"version", std::string(artifact::version())}};
  }

  void save(std::int64_t chunks) const {
    if (options_.state_folder.empty()) return;
    artifact::save_state(
        options_.state_folder,
        {.step = chunks,
         .identity = identity(),
         .cursor =
             {{"tokens", tokens_},
              {"loss_tokens", loss_tokens_},
              {"chunk_tokens", cut_.chunk_tokens}},
         .micro_batch_tokens = cut_.micro_batch_tokens,
         .tensors = scores_.state(),
         .unit = "chunk"});
  }

  std::optional<artifact::RunState> saved_state() const {
    const std::filesystem::path& folder = options_.state_folder;
    if (team_.ranks() == 1) {
      return artifact::load_newest_state(folder, "analyze");
    }
    const auto all = [](const std::string&) { return true; };
    return artifact::load_shared_state(*team_.group, folder, "analyze", all);
  }

  // Chunks already done.
  std::int64_t restore() {
    const auto state = saved_state();
    if (!state) {
      const std::string_view score = scores_.needs_one_chunk();
      note(
          score.empty() ? "no saved state found; starting from the first chunk"
                        : fmt::format(
                              "a run with score {} and without --keep-moments "
                              "is one chunk "
                              "and saves no state; starting at the beginning",
                              score));
      return 0;
    }
    artifact::check_same_run(state->identity, identity(), "analyze");
    scores_.restore(state->tensors);
    const JsonObject cursor(state->cursor, "analyze", "the state's cursor");
    tokens_ = cursor.integer("tokens");
    loss_tokens_ = cursor.integer("loss_tokens");
    cut_.chunk_tokens = cursor.integer("chunk_tokens");
    cut_.micro_batch_tokens = artifact::resumed_micro_batch(
        *state, cut_.micro_batch_tokens, options_.sweep.reporter);
    note(fmt::format("resuming after chunk {}", state->step));
    return state->step;
  }

  artifact::ScoreFile file() const {
    artifact::ScoreFile file;
    file.model_fingerprint = fingerprint_;
    file.version = artifact::version();
    file.tokens = tokens_;
    for (std::int64_t l = 0; l < model_.config().num_layers(); ++l) {
      file.layers.push_back(scores_.finish(l));
    }
    file.run = options_.run;
    if (team_.shards > 1) file.run["shards"] = team_.shards;
    file.run["scores"] = options_.scores;
    file.run["batch_sequences"] = options_.batch_sequences;
    file.run["seed"] = options_.seed;
    file.run["sequences"] = data_.size();
    file.run["loss_tokens"] = loss_tokens_;
    file.run["data_checksums"] = {checksum_};
    if (prices_) file.run["targets"] = "drawn";
    return file;
  }

  model::CausalLm& model_;
  const std::vector<model::Sequence>& data_;
  const AnalyzeOptions& options_;
  ranks::Team team_;
  ScoreSet scores_;
  std::optional<RowPriceObserver> prices_;
  CalibrationOptions cut_;
  std::string fingerprint_, checksum_;
  std::int64_t tokens_ = 0, loss_tokens_ = 0;
};

}  // namespace

bool needs_backward(const std::vector<std::string>& scores) {
  return std::ranges::any_of(scores, [](const std::string& name) {
    return find_score(name).needs_backward;
  });
}

bool needs_one_chunk(const std::vector<std::string>& scores) {
  return std::ranges::any_of(scores, [](const std::string& name) {
    return find_score(name).needs_one_chunk;
  });
}

bool reads_data(const std::vector<std::string>& scores) {
  return std::ranges::any_of(scores, [](const std::string& name) {
    return find_score(name).reads_data;
  });
}

std::vector<model::Sequence> no_data() {
  model::Sequence one;
  one.ids = {0};
  one.labels = {0};
  return {one};
}

void without_tokens(artifact::ScoreFile& scores) {
  scores.tokens = 0;
  for (artifact::LayerScores& layer : scores.layers) {
    if (layer.widths.empty()) continue;
    layer.tokens.zero_();
    layer.mean_h.zero_();
    layer.router_entropy = 0;
    for (auto& [name, sum] : layer.sums) {
      if (name.starts_with("base.")) sum.values.zero_();
    }
  }
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
  }
  return bytes + analyze_layer_bytes(config, scores);
}

std::int64_t kept_moment_bytes(
    const model::ModelConfig& config, const std::vector<std::string>& scores) {
  std::int64_t pairs = 0;
  for (const model::LayerConfig& layer : config.layers) {
    for (const std::int64_t width : layer.expert_widths) {
      pairs += width * width;
    }
  }
  const bool kept = std::ranges::any_of(scores, [](const std::string& name) {
    return find_score(name).needs_one_chunk;
  });
  return kept ? 16 * pairs : 0;  // two fp64 sums
}

std::int64_t analyze_layer_bytes(
    const model::ModelConfig& config, const std::vector<std::string>& scores) {
  std::int64_t bytes = 0;
  for (const std::string& name : scores) {
    const ScoreMethod& method = find_score(name);
    if (method.layer_bytes != nullptr) bytes += method.layer_bytes(config);
  }
  return bytes;
}

std::int64_t chunk_tokens_within(
    const sweep::SweepPlan& plan, std::int64_t weight_bytes) {
  const std::int64_t kept = plan.activation_bytes;
  const std::int64_t spilled = plan.spilled_bytes;
  if (spilled == 0 || kept == 0) return 0;
  const double share =
      static_cast<double>(kept) / static_cast<double>(kept + spilled);
  const auto chunk = static_cast<std::int64_t>(
      share * static_cast<double>(plan.workload.tokens));
  if (chunk < plan.workload.longest_sequence) return 0;
  // Weights are read once a pass, activations written and read back.
  const double passes = plan.workload.backward ? 2 : 1;
  const double again =
      (1 / share - 1) * passes * static_cast<double>(weight_bytes);
  return again < 2.0 * static_cast<double>(spilled) ? chunk : 0;
}

artifact::ScoreFile analyze(
    model::CausalLm& model,
    const std::vector<model::Sequence>& data,
    const AnalyzeOptions& options) {
  return Analysis(model, data, options).run();
}

PricedScores analyze_with_prices(
    model::CausalLm& model,
    const std::vector<model::Sequence>& data,
    const AnalyzeOptions& options) {
  if (!needs_backward(options.scores)) {
    throw UserError(
        "analyze",
        "prices",
        "expected a score that needs a backward sweep, such as obs, found "
        "none");
  }
  Analysis analysis(model, data, options, Targets::kDrawn);
  PricedScores result{analysis.run(), {}};
  result.prices = analysis.prices();
  return result;
}

std::int64_t price_bytes(const model::ModelConfig& config) {
  std::int64_t values = 2 * config.vocab_size;
  std::int64_t largest = 0;
  for (std::int64_t l = 0; l < config.num_layers(); ++l) {
    const model::LayerConfig& layer = config.layers[l];
    std::int64_t rows = 3 * layer.total_width();
    for (const model::WeightId& id : model::layer_weights(config, l)) {
      if (model::role_info(id.role).is_packable()) {
        rows += model::weight_shape(config, id).front();
      }
    }
    values += rows;
    largest = std::max(largest, rows);
  }
  return 4 * (values + 2 * largest);
}

}  // namespace fettle::analyze
