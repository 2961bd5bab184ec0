// SPDX-License-Identifier: Apache-2.0
#include "tune/tune.h"

#include "tune/trainer.h"

namespace fettle::tune {

Json TuneResult::to_json() const {
  return {
      {"steps", steps},
      {"stopped", stopped},
      {"stopped_early", stopped_early},
      {"best_step", best_step > 0 ? Json(best_step) : Json()},
      {"trainable_weights", trainable_weights},
      {"tokens", tokens},
      {"seconds", seconds},
      {"tokens_per_second",
       seconds > 0.0 ? static_cast<double>(tokens) / seconds : 0.0},
      {"loss", loss},
      {"held_out_before", tune::to_json(held_out_before)},
      {"held_out_after", tune::to_json(held_out_after)}};
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
