// SPDX-License-Identifier: Apache-2.0
#include "cli/eval_choices.h"

#include <fmt/format.h>

#include "cli/session.h"
#include "cli/table.h"
#include "core/stopwatch.h"
#include "sweep/data.h"

namespace fettle::cli {
namespace {

using sweep::ChoiceScore;
using sweep::ChoiceSet;

// Positions of a model whose configuration names none, as lm-eval has it.
constexpr std::int64_t kUsualPositions = 2048;

std::vector<ChoiceSet> choice_sets(const TaskFlags& flags) {
  std::vector<ChoiceSet> sets;
  for (const auto& file : data_files(flags.choices)) {
    sets.push_back(sweep::read_choices(file.path));
    limit_rows(flags, sets.back().rows);
  }
  return sets;
}

sweep::Shots choice_shots(const TaskFlags& flags) {
  if (flags.shots == 0) return {};
  sweep::Shots shots{sweep::read_choices(flags.shots_from).rows};
  take_shots(flags, shots.rows);
  return shots;
}

std::int64_t most_tokens(const model::ModelConfig& config, std::int64_t asked) {
  if (asked > 0) return window_tokens(config, asked);
  return config.max_position > 0 ? config.max_position : kUsualPositions;
}

// All files as one, each question counted once.
ChoiceScore over_all_choices(const std::vector<ChoiceScore>& scores) {
  ChoiceScore all;
  all.name = "all";
  for (const ChoiceScore& score : scores) {
    all.answers.insert(
        all.answers.end(), score.answers.begin(), score.answers.end());
    all.right += score.right;
    all.right_norm += score.right_norm;
    all.right_bytes += score.right_bytes;
  }
  return all;
}

Json choice_score_json(const ChoiceScore& score) {
  const std::int64_t n = score.questions();
  Json json{{"questions", n}};
  add_share(json, "acc", sweep::share_of(score.right, n));
  add_share(json, "acc_norm", sweep::share_of(score.right_norm, n));
  add_share(json, "acc_bytes", sweep::share_of(score.right_bytes, n));
  return json;
}

void write_rows(
    const std::string& path,
    const std::vector<ChoiceSet>& sets,
    const std::vector<ChoiceScore>& scores) {
  RowFile file(path);
  for (std::size_t s = 0; s < sets.size(); ++s) {
    for (std::size_t r = 0; r < sets[s].rows.size(); ++r) {
      const sweep::ChoiceAnswer& answer = scores[s].answers[r];
      file.add(
          {{"file", sets[s].name},
           {"row", r},
           {"answer", sets[s].rows[r].answer},
           {"chosen", answer.by_sum},
           {"chosen_norm", answer.by_characters},
           {"chosen_bytes", answer.by_bytes},
           {"log_likelihoods", answer.log_likelihoods}});
    }
  }
  file.close();
}

Outcome outcome_of(const std::vector<ChoiceScore>& scores, double seconds) {
  Table table({"file", "questions", "acc", "acc_norm"});
  Json files = Json::array();
  const auto add = [&](const ChoiceScore& score) {
    const std::int64_t n = score.questions();
    table.add(
        {score.name,
         fmt::format("{}", n),
         share_text(sweep::share_of(score.right, n)),
         share_text(sweep::share_of(score.right_norm, n))});
  };
  for (const ChoiceScore& score : scores) {
    add(score);
    files.push_back(choice_score_json(score));
    files.back()["file"] = score.name;
  }
  const ChoiceScore all = over_all_choices(scores);
  if (scores.size() > 1) add(all);
  const double rate = static_cast<double>(all.questions()) / seconds;
  return {
      .json =
          {{"files", files},
           {"all", choice_score_json(all)},
           {"questions_per_second", rate}},
      .text = table.text() + fmt::format("{:.1f} questions/s\n", rate)};
}

}  // namespace

Outcome run_choices(Session& session, const ChoiceRun& run) {
  auto reader = session.read(run.model);
  const auto tokenizer = session.tokenizer(run.model);
  const std::vector<ChoiceSet> sets = choice_sets(run.flags);
  const sweep::Continuations asked = sweep::encode_choices(
      sets,
      choice_shots(run.flags),
      {tokenizer, run.model, most_tokens(reader->config(), run.seq_len)});
  session.require_same("the questions", sweep::checksum(asked.sequences()));
  sweep::Workload workload;
  workload.takes_experts_apart = true;
  workload.add(asked.sequences(), run.eval.chunk_tokens);
  OpenModel opened = session.open(std::move(reader), workload);
  sweep::EvalOptions options = run.eval;
  options.micro_batch_tokens = opened.plan.micro_batch_tokens;
  options.sweep = opened.plan.sweep_options(nullptr);
  const Stopwatch watch;
  const auto scores = sweep::score_choices(
      sets,
      sweep::log_likelihoods(
          *opened.model, asked, options, session.reporter()));
  if (!session.leads()) return {};
  write_rows(run.flags.rows, sets, scores);
  return outcome_of(scores, watch.seconds());
}

}  // namespace fettle::cli
