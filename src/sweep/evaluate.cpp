// SPDX-License-Identifier: Apache-2.0
#include "sweep/evaluate.h"

#include <fmt/format.h>

#include <algorithm>
#include <chrono>
#include <cmath>
#include <filesystem>
#include <iterator>
#include <utility>

#include "core/error.h"
#include "ranks/group.h"
#include "ranks/ordered_sum.h"
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

// Of each set over all shards of all ranks; counts stay whole numbers. Ranks
// wait for each other once, and not in each set.
std::vector<Sums> over_shards(
    const ranks::Team& team, const std::vector<std::vector<Sums>>& sets) {
  std::vector<Sums> all;
  if (!team.divides()) {
    for (const auto& shards : sets) all.push_back(shards.front());
    return all;
  }
  const auto count = static_cast<std::int64_t>(sets.size());
  const auto losses = [&] { return at::zeros({count, 2}, at::kDouble); };
  const auto counts = [&] { return at::zeros({count, 2}, at::kLong); };
  ranks::ShardSum own({ranks::Reduction::kSum, ranks::Reduction::kSum});
  const ranks::Shards shards = team.own();
  for (std::int64_t s = 0; s < shards.count; ++s) {
    const at::Tensor loss = losses();
    const at::Tensor number = counts();
    auto* l = loss.mutable_data_ptr<double>();
    auto* n = number.mutable_data_ptr<std::int64_t>();
    for (const auto& set : sets) {
      const Sums& sums = set[static_cast<std::size_t>(s)];
      *l++ = sums.nll;
      *l++ = sums.kl;
      *n++ = sums.tokens;
      *n++ = sums.top1;
    }
    own.add({shards.first + s, 1, {loss, number}});
  }
  const at::Tensor loss = losses();
  const at::Tensor number = counts();
  ranks::sum_over_ranks(team, std::move(own), {loss, number});
  const auto* l = loss.const_data_ptr<double>();
  const auto* n = number.const_data_ptr<std::int64_t>();
  for (std::size_t i = 0; i < sets.size(); ++i, l += 2, n += 2) {
    all.push_back({.tokens = n[0], .nll = l[0], .kl = l[1], .top1 = n[1]});
  }
  return all;
}

// Gives what a set's sweeps report the set's name.
class NamingReporter : public Reporter {
 public:
  NamingReporter(Reporter& reporter, std::string name)
      : reporter_(reporter), name_(std::move(name)) {}

  std::size_t begin(ProgressTask task) override {
    task.label = name_;
    return reporter_.begin(std::move(task));
  }
  void advance(std::size_t id, std::uint64_t n) override {
    reporter_.advance(id, n);
  }
  void tell(std::size_t id, std::string text) override {
    reporter_.tell(id, std::move(text));
  }
  void end(std::size_t id) override { reporter_.end(id); }
  void note(std::string_view text) override { reporter_.note(text); }

 private:
  Reporter& reporter_;
  std::string name_;
};

// "eval held.jsonl (2 of 5)"
std::string label_of(const std::vector<EvalSet>& sets, std::size_t i) {
  const std::string file =
      std::filesystem::path(sets[i].name).filename().string();
  if (sets.size() == 1) return "eval " + file;
  return fmt::format("eval {} ({} of {})", file, i + 1, sets.size());
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

  // By own shard.
  std::vector<Sums> run(const EvalSet& set) {
    const ranks::Team& team = options_.sweep.team;
    std::vector<Sums> shards(static_cast<std::size_t>(team.own().count));
    for (const auto& runs :
         own_sweeps(set.sequences, team, options_.chunk_tokens)) {
      add(set.sequences, runs, shards);
    }
    return shards;
  }

 private:
  // One sweep; adds to the sums of each run's shard.
  void add(
      Sequences sequences,
      const std::vector<SequenceRun>& runs,
      std::vector<Sums>& shards) {
    if (options_.stop_requested && *options_.stop_requested) throw Stopped();
    std::vector<model::TokenBatch> batches;
    std::vector<std::size_t> shard_of;
    for (const SequenceRun& run : runs) {
      auto own = micro_batches(
          run.of(sequences),
          options_.micro_batch_tokens,
          model_.config().vocab_size);
      shards[run.shard].tokens += loss_tokens(own);
      shard_of.insert(shard_of.end(), own.size(), run.shard);
      std::ranges::move(own, std::back_inserter(batches));
    }
    SweepOptions sweep_options = options_.sweep;
    sweep_options.reporter = &reporter_;
    sweep_options.team = {};  // what is added up is added up here
    Sweep sweep(model_, batches, sweep_options);
    sweep.forward({}, {});
    const auto losses = sweep.token_nll();
    for (std::size_t m = 0; m < losses.size(); ++m) {
      shards[shard_of[m]].nll += losses[m].sum(at::kDouble).item<double>();
    }
    if (teacher_ == nullptr) return;
    Sweep taught(*teacher_, batches, sweep_options);
    taught.forward({}, {});
    const auto held = model_.lm_head();  // for all micro-batches
    const auto teachers = teacher_->lm_head();
    for (std::size_t m = 0; m < batches.size(); ++m) {
      const auto i = static_cast<std::int64_t>(m);
      const Comparison comparison = head_compare(
          model_,
          sweep.hidden(i),
          *teacher_,
          taught.hidden(i),
          batches[m].targets.to(model_.options().device));
      Sums& sums = shards[shard_of[m]];
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

EvalScore over_all(const std::vector<EvalScore>& sets) {
  EvalScore all;
  all.name = "all";
  double nll = 0.0;
  double kl = 0.0;
  double top1 = 0.0;
  for (const EvalScore& set : sets) {
    const auto tokens = static_cast<double>(set.tokens);
    all.tokens += set.tokens;
    nll += tokens * set.nll;
    kl += tokens * set.kl.value_or(0.0);
    top1 += tokens * set.top1.value_or(0.0);
  }
  const auto tokens = static_cast<double>(all.tokens);
  all.nll = nll / tokens;
  all.perplexity = std::exp(all.nll);
  if (!sets.empty() && sets.front().kl) {
    all.kl = kl / tokens;
    all.top1 = top1 / tokens;
  }
  return all;
}

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
  const ranks::Team& team = options.sweep.team;
  if (team.divides()) team.group->barrier();  // the rate is that of the work
  const auto begin = std::chrono::steady_clock::now();
  std::vector<std::vector<Sums>> sums;
  for (std::size_t i = 0; i < sets.size(); ++i) {
    NamingReporter named(reporter, label_of(sets, i));
    if (team.divides()) team.group->begin(label_of(sets, i));
    sums.push_back(Evaluator(model, teacher, options, named).run(sets[i]));
  }
  const auto totals = over_shards(team, sums);
  EvalResult result;
  std::int64_t tokens = 0;
  for (std::size_t i = 0; i < sets.size(); ++i) {
    result.sets.push_back(score_of(sets[i], totals[i], teacher != nullptr));
    tokens += result.sets.back().tokens;
  }
  const std::chrono::duration<double> seconds =
      std::chrono::steady_clock::now() - begin;
  result.tokens_per_second = static_cast<double>(tokens) / seconds.count();
  return result;
}

}  // namespace fettle::sweep
