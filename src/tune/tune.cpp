// SPDX-License-Identifier: Apache-2.0
#include "tune/tune.h"

#include <fmt/format.h>

#include <cmath>

#include "artifact/run_state.h"
#include "tune/adapter/adapter.h"
#include "tune/method/option_checks.h"
#include "tune/trainer.h"

namespace fettle::tune {

Json TuneResult::found() const {
  return {
      {"steps", steps},
      {"stopped", stopped},
      {"stopped_early", stopped_early},
      {"best_step", best_step > 0 ? Json(best_step) : Json()},
      {"trainable_weights", trainable_weights},
      {"peak_rates", peak_rates},
      {"own_rates", own_rates},
      {"tokens", tokens},
      {"loss", loss},
      {"skipped_steps", skipped_steps},
      {"masked_sequences", masked_sequences},
      {"held_out_before", tune::to_json(held_out_before)},
      {"held_out_after", tune::to_json(held_out_after)}};
}

Json TuneResult::timings() const {
  return {
      {"seconds", seconds},
      {"tokens_per_second",
       seconds > 0.0 ? static_cast<double>(tokens) / seconds : 0.0}};
}

Json TuneResult::to_json() const {
  Json json = found();
  json.update(timings());
  return json;
}

namespace {

std::vector<sweep::EvalScore> read_scores(const JsonObject& json) {
  std::vector<sweep::EvalScore> scores;
  for (const auto& item : json.json().items()) {
    const JsonObject score = json.object(item.key());
    sweep::EvalScore read;
    read.name = item.key();
    read.nll = score.number("nll");
    read.tokens = score.integer("tokens");
    read.perplexity = std::exp(read.nll);
    scores.push_back(std::move(read));
  }
  return scores;
}

TuneResult read_result(const JsonObject& found) {
  TuneResult result;
  result.steps = found.integer("steps");
  result.stopped_early = found.boolean("stopped_early");
  result.best_step = found.integer_or("best_step", 0);
  result.trainable_weights = found.integer("trainable_weights");
  result.tokens = found.integer("tokens");
  result.peak_rates = found.object("peak_rates").json();
  result.own_rates = found.boolean("own_rates");
  result.skipped_steps = found.integer("skipped_steps");
  result.masked_sequences = found.integer("masked_sequences");
  result.loss = found.number("loss");
  result.held_out_before = read_scores(found.object("held_out_before"));
  result.held_out_after = read_scores(found.object("held_out_after"));
  return result;
}

}  // namespace

std::optional<TuneResult> finished_run(
    const std::filesystem::path& out,
    const model::ModelReader& reader,
    const TuneOptions& options) {
  if (!std::filesystem::exists(out / "adapter.json")) return std::nullopt;
  AdapterInfo info = Adapter::load(out, reader).info();
  Json now = to_json(options);
  for (Json* each : {&now, &info.options}) each->erase("save_every");
  artifact::check_same_run(
      {{"options", info.options}}, {{"options", now}}, "tune");
  return read_result(
      JsonObject(info.measured, "tune", (out / "adapter.json").string()));
}

std::string rates_text(const TuneResult& result) {
  const bool several = result.peak_rates.size() > 1;
  std::string text;
  for (const auto& [method, rate] : result.peak_rates.items()) {
    text += fmt::format(
        "{}{}{:g}",
        text.empty() ? "" : ", ",
        several ? method + " " : "",
        rate.get<double>());
  }
  if (text.empty()) return "none";
  if (!result.own_rates) return text;
  return text + (several ? ", the methods' own" : ", the method's own");
}

Json to_json(const std::vector<sweep::EvalScore>& scores) {
  Json json = Json::object();
  for (const sweep::EvalScore& score : scores) {
    json[score.name] = {{"nll", score.nll}, {"tokens", score.tokens}};
  }
  return json;
}

TuneResult tune(
    const TuneInput& input, const TuneOptions& options, Reporter& reporter) {
  const TuneOptions all = settled(options, input.model.config());
  check_options(all, input.model.config());
  check_evaluation(all, !input.held_out.empty());
  Trainer trainer(input, all, reporter);
  return trainer.run();
}

}  // namespace fettle::tune
