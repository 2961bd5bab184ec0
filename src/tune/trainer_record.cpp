// SPDX-License-Identifier: Apache-2.0
// What is written of a step: its line of metrics, and evaluations.
#include <fmt/format.h>

#include <algorithm>
#include <cmath>

#include "core/stopwatch.h"
#include "tune/adapter/adapter.h"
#include "tune/report.h"
#include "tune/trainer.h"

namespace fettle::tune {

// A step is over when it is evaluated: until then only the first evaluation can
// be stopped.
std::vector<sweep::EvalScore> Trainer::evaluate() {
  const Stopwatch watch;
  auto scores = sweep::evaluate(
                    input_.model,
                    nullptr,
                    input_.held_out,
                    {.micro_batch_tokens = micro_batch_tokens_,
                     .chunk_tokens = options_.tokens_per_step,
                     .sweep = input_.sweep,
                     .stop_requested = result_.steps == 0 && !team_.divides()
                                           ? input_.stop_requested
                                           : nullptr},
                    reporter_)
                    .sets;
  for (const sweep::EvalScore& score : scores) {
    reporter_.note(fmt::format(
        "{}: {:.4f} nats over {} tokens", score.name, score.nll, score.tokens));
  }
  times_.eval = watch.seconds();
  return scores;
}

void Trainer::judge(
    std::int64_t steps, const std::vector<sweep::EvalScore>& losses) {
  best_.take(steps, losses, [&](const std::filesystem::path& folder) {
    write_adapter(folder);
  });
  result_.held_out_after = losses;
  if (!best_.exhausted() || steps == options_.steps) return;
  reporter_.note(fmt::format(
      "no better evaluation in {} after step {}: the run ends here",
      best_.waited(),
      best_.step()));
}

bool Trainer::evaluates(std::int64_t step) const {
  return step + 1 == options_.steps ||
         (options_.eval_every > 0 && (step + 1) % options_.eval_every == 0);
}

void Trainer::record(
    std::int64_t step, const StepResult& result, const ChoiceCounts* choices) {
  std::vector<sweep::EvalScore> losses;
  if (evaluates(step) && !input_.held_out.empty()) losses = evaluate();
  if (!losses.empty()) judge(step + 1, losses);
  const auto tokens = sequences_per_step_ * options_.seq_len;
  const double sweeps =
      result.forward_seconds + result.backward_seconds + result.update_seconds;
  Json rates = Json::object();
  for (const auto& part : parts_) {
    rates[std::string(part->name())] = part->learning_rate(step);
  }
  Json line{
      {"step", step + 1},
      {"lr", std::move(rates)},
      {"tokens", tokens},
      {"loss_tokens", result.loss_tokens},
      {"tokens_per_second", static_cast<double>(tokens) / sweeps},
      {"seconds",
       {{"prepare", times_.prepare},
        {"forward", result.forward_seconds},
        {"backward", result.backward_seconds},
        {"update", result.update_seconds},
        {"eval", times_.eval},
        {"wait", result.wait_seconds}}},
      // Time of threads beside the sweeps.
      {"io_seconds",
       {{"weights", result.weight_io_seconds},
        {"states", result.state_io_seconds}}}};
  if (!result.failure.empty()) {
    line["skipped"] = result.failure;
  } else {
    line["loss"] = result.loss;
    line["grad_norm"] = result.grad_norm;
  }
  if (left_out_ > 0) line["masked_sequences"] = left_out_;
  if (input_.open_teacher && result.failure.empty()) {
    line["nll"] = result.nll;
    line["kl"] = result.kl;
  }
  if (!losses.empty()) {
    line["eval"] = tune::to_json(losses);
    line["best_step"] = best_.step();
  }
  if (choices != nullptr) line["choices"] = choices->to_json();
  metrics_->append(line);
}

namespace {

Json score_list(const std::vector<sweep::EvalScore>& scores) {
  Json list = Json::array();
  for (const sweep::EvalScore& score : scores) {
    list.push_back(
        {{"name", score.name}, {"nll", score.nll}, {"tokens", score.tokens}});
  }
  return list;
}

// The scores of the held-out sets as they are now; none if the sets differ.
std::vector<sweep::EvalScore> listed_scores(
    const JsonObject& found,
    std::string_view key,
    const std::vector<sweep::EvalSet>& sets) {
  const Json& list = found.at(key);
  if (!list.is_array()) found.refuse(key, "expected a list");
  std::vector<sweep::EvalScore> scores;
  for (const Json& item : list) {
    const JsonObject row(item, "tune", found.subject());
    sweep::EvalScore score;
    score.name = row.string("name");
    score.nll = row.number("nll");
    score.perplexity = std::exp(score.nll);
    score.tokens = row.integer("tokens");
    scores.push_back(std::move(score));
  }
  const bool same = std::ranges::equal(
      scores, sets, {}, &sweep::EvalScore::name, &sweep::EvalSet::name);
  return same ? scores : std::vector<sweep::EvalScore>{};
}

}  // namespace

Json Trainer::found_until_now() const {
  return {
      {"tokens", result_.tokens},
      {"seconds", result_.seconds},
      {"loss", result_.loss},
      {"held_out_before", score_list(result_.held_out_before)},
      {"held_out_after", score_list(result_.held_out_after)}};
}

void Trainer::restore_found(const JsonObject& found) {
  if (found.json().empty()) return;  // saved by an older version
  result_.tokens = found.integer("tokens");
  result_.seconds = found.number("seconds");
  result_.loss = found.number("loss");
  result_.held_out_before =
      listed_scores(found, "held_out_before", input_.held_out);
  result_.held_out_after =
      listed_scores(found, "held_out_after", input_.held_out);
}

std::string Trainer::step_text(std::int64_t step) const {
  std::string text = fmt::format("step {} of {}", step + 1, options_.steps);
  if (!shown_loss_.empty()) {
    text += fmt::format(", loss {:.4f}", shown_loss_.value());
  }
  text += fmt::format(", lr {:.2g}", parts_.front()->learning_rate(step));
  if (!shown_loss_.empty()) text += fmt::format(", norm {:.2g}", grad_norm_);
  return text;
}

void Trainer::count_skipped() {
  for (const Json& line : read_metrics(directory_.path() / kMetricsFile)) {
    if (line.contains("skipped")) ++result_.skipped_steps;
    result_.masked_sequences += line.value("masked_sequences", 0);
  }
}

void Trainer::report() const {
  const auto layers = input_.model.config().num_layers();
  const std::filesystem::path& folder = directory_.path();
  write_report(
      folder / "report.html",
      {.title = input_.model.reader().name(),
       .options = options_,
       .result = result_,
       .metrics = read_metrics(folder / kMetricsFile),
       .trained = trained_by_layer(parts_, layers),
       .making = input_.making});
}

}  // namespace fettle::tune
