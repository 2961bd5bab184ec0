// SPDX-License-Identifier: Apache-2.0
#include "tune/tune.h"

#include <cmath>

#include "artifact/run_state.h"
#include "tune/adapter/adapter.h"
#include "tune/trainer.h"

namespace fettle::tune {

Json TuneResult::found() const {
  return {
      {"steps", steps},
      {"stopped", stopped},
      {"stopped_early", stopped_early},
      {"best_step", best_step > 0 ? Json(best_step) : Json()},
      {"trainable_weights", trainable_weights},
      {"tokens", tokens},
      {"loss", loss},
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

Json to_json(const std::vector<sweep::EvalScore>& scores) {
  Json json = Json::object();
  for (const sweep::EvalScore& score : scores) {
    json[score.name] = {{"nll", score.nll}, {"tokens", score.tokens}};
  }
  return json;
}

TuneResult tune(
    const TuneInput& input, const TuneOptions& options, Reporter& reporter) {
  check_options(options, input.model.config());
  check_evaluation(options, !input.held_out.empty());
  Trainer trainer(input, options, reporter);
  return trainer.run();
}

}  // namespace fettle::tune
