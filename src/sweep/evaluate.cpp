// SPDX-License-Identifier: Apache-2.0
#include "sweep/evaluate.h"

#include <fmt/format.h>

#include <chrono>
#include <cmath>

#include "core/error.h"
#include "sweep/head.h"
#include "sweep/micro_batches.h"
#include "sweep/sweep.h"

namespace fettle::sweep {
namespace {

struct Sums {
  std::int64_t tokens = 0;
  double nll = 0;
  double kl = 0;
  std::int64_t top1 = 0;
};

// Sequences of one set, cut into runs of at most `tokens` tokens.
std::vector<std::vector<model::Sequence>> chunks_of(
    const std::vector<model::Sequence>& sequences, std::int64_t tokens) {
  std::vector<std::vector<model::Sequence>> chunks;
  std::int64_t room = 0;
  for (const auto& sequence : sequences) {
    const auto length = static_cast<std::int64_t>(sequence.ids.size());
    if (chunks.empty() || length > room) {
      chunks.emplace_back();
      room = tokens;
    }
    chunks.back().push_back(sequence);
    room -= length;
  }
  return chunks;
}

class Evaluator {
 public:
  Evaluator(
      model::CausalLm& model,
      model::CausalLm* teacher,
      const EvalOptions& options,
      Reporter& reporter)
      : model_(model),
        teacher_(teacher),
        options_(options),
        reporter_(reporter) {}

  Sums run(const EvalSet& set) {
    Sums sums;
    for (const auto& chunk : chunks_of(set.sequences, options_.chunk_tokens)) {
      if (options_.stop_requested && *options_.stop_requested) throw Stopped();
      add_chunk(chunk, sums);
    }
    return sums;
  }

 private:
  void add_chunk(const std::vector<model::Sequence>& chunk, Sums& sums) {
    const auto batches = micro_batches(
        chunk, options_.micro_batch_tokens, model_.config().vocab_size);
    SweepOptions sweep_options = options_.sweep;
    sweep_options.reporter = &reporter_;
    Sweep sweep(model_, batches, sweep_options);
    sweep.forward({}, {});
    for (const at::Tensor& nll : sweep.token_nll()) {
      sums.nll += nll.sum(at::kDouble).item<double>();
    }
    sums.tokens += loss_tokens(batches);
    if (teacher_ == nullptr) return;
    Sweep taught(*teacher_, batches, sweep_options);
    taught.forward({}, {});
    for (std::size_t m = 0; m < batches.size(); ++m) {
      const auto i = static_cast<std::int64_t>(m);
      const Comparison comparison = head_compare(
          model_,
          sweep.hidden(i),
          *teacher_,
          taught.hidden(i),
          batches[m].targets.to(model_.options().device));
      sums.kl += comparison.kl.sum(at::kDouble).item<double>();
      sums.top1 += comparison.top1.sum().item<std::int64_t>();
    }
  }

  model::CausalLm& model_;
  model::CausalLm* teacher_;
  const EvalOptions& options_;
  Reporter& reporter_;
};

EvalScore score_of(const EvalSet& set, const Sums& sums, bool taught) {
  if (sums.tokens == 0) {
    throw UserError(
        "eval",
        set.name,
        "holds no token to score; every line needs at least two tokens");
  }
  const auto tokens = static_cast<double>(sums.tokens);
  EvalScore score;
  score.name = set.name;
  score.tokens = sums.tokens;
  score.nll = sums.nll / tokens;
  score.perplexity = std::exp(score.nll);
  if (taught) {
    score.kl = sums.kl / tokens;
    score.top1 = static_cast<double>(sums.top1) / tokens;
  }
  return score;
}

}  // namespace

EvalResult evaluate(
    model::CausalLm& model,
    model::CausalLm* teacher,
    const std::vector<EvalSet>& sets,
    const EvalOptions& options,
    Reporter& reporter) {
  if (teacher != nullptr &&
      teacher->config().vocab_size != model.config().vocab_size) {
    throw UserError(
        "eval",
        "--against",
        fmt::format(
            "the teacher's vocabulary of {} tokens is not the model's of {}",
            teacher->config().vocab_size,
            model.config().vocab_size));
  }
  const auto begin = std::chrono::steady_clock::now();
  EvalResult result;
  std::int64_t tokens = 0;
  Evaluator evaluator(model, teacher, options, reporter);
  for (const EvalSet& set : sets) {
    result.sets.push_back(
        score_of(set, evaluator.run(set), teacher != nullptr));
    tokens += result.sets.back().tokens;
  }
  const std::chrono::duration<double> seconds =
      std::chrono::steady_clock::now() - begin;
  result.tokens_per_second = static_cast<double>(tokens) / seconds.count();
  return result;
}

}  // namespace fettle::sweep
