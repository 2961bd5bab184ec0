// SPDX-License-Identifier: Apache-2.0
#include "cli/chain_check.h"

#include <fmt/format.h>

#include <algorithm>

#include "cli/inputs.h"
#include "cli/parsed_command.h"
#include "cli/targets.h"
#include "core/error.h"
#include "model/weights/model_reader.h"

namespace fettle::cli {
namespace {

namespace fs = std::filesystem;

void check_step_folder(const ChainStep& step, const RunRecord& record) {
  std::error_code ignored;
  if (step.out.empty() || !fs::exists(step.out, ignored)) return;
  if (record.is_whole(step) || record.is_stale(step)) return;
  throw UserError(
      "recipe",
      step.out.string(),
      "exists already and is none of this recipe's; move it, or give the "
      "recipe another 'out'");
}

bool has_packed_weights(const model::ModelReader& reader) {
  return std::ranges::any_of(
      model::model_weights(reader.config()), [&](const model::WeightId& id) {
        return reader.packed_header(id) != nullptr;
      });
}

}  // namespace

void check_work_folder(const Recipe& recipe) {
  std::error_code ignored;
  if (fs::is_directory(recipe.out, ignored)) return;
  check_new_folder({"out", recipe.out});
}

void check_chain(
    const Recipe& recipe,
    const std::vector<ChainStep>& steps,
    const RunRecord& record) {
  check_data("data: eval", recipe.eval);
  const model::ModelReader reader(recipe.model);
  Foreseen foreseen{
      .config = reader.config(), .packed = has_packed_weights(reader)};
  for (const ChainStep& step : steps) {
    const ParsedCommand command(step.command, step.arguments);
    check_step_folder(step, record);
    if (!record.is_whole(step)) command.check(foreseen);
    if (step.command == "analyze") foreseen.scores = command.values("--scores");
    if (step.command == "quant") foreseen.packed = true;
  }
}

}  // namespace fettle::cli
