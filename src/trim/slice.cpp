// SPDX-License-Identifier: Apache-2.0
#include "trim/slice.h"

#include <fmt/format.h>

#include <algorithm>

#include "core/error.h"
#include "trim/plan.h"
#include "trim/sliced_weights.h"

namespace fettle::trim {
namespace {

std::string_view name_of(Repair repair) {
  return repair == Repair::kConstant ? "constant" : "none";
}

bool cuts_neurons(
    const artifact::LayerPlan& plan, const model::LayerConfig& layer) {
  return std::ranges::any_of(
      plan.experts, [&](const artifact::ExpertPlan& expert) {
        return static_cast<std::int64_t>(expert.neurons.size()) <
               layer.expert_widths[expert.expert];
      });
}

void check_repair(
    const artifact::ScoreFile& scores, const model::ModelConfig& config) {
  for (std::size_t l = 0; l < config.layers.size(); ++l) {
    const model::LayerConfig& layer = config.layers[l];
    if (!layer.sparse) continue;
    const bool present = l < scores.layers.size() &&
                         scores.layers[l].widths == layer.expert_widths &&
                         scores.layers[l].mean_h.defined() &&
                         scores.layers[l].mean_h.numel() == layer.total_width();
    if (present) continue;
    throw UserError(
        "trim",
        fmt::format("layer {}", l),
        "repair constant needs the mean activations of this model's scores; "
        "run fettle analyze, or choose repair none");
  }
}

}  // namespace

model::ModelConfig trimmed_config(
    const model::ModelConfig& config,
    const artifact::TrimPlan& plan,
    Repair repair) {
  plan.check_against(config);
  model::ModelConfig result = config;
  for (std::size_t l = 0; l < config.layers.size(); ++l) {
    const artifact::LayerPlan& kept = plan.layers[l];
    model::LayerConfig& layer = result.layers[l];
    if (!layer.sparse) continue;
    layer.top_k = kept.top_k;
    layer.expert_widths.clear();
    for (const artifact::ExpertPlan& expert : kept.experts) {
      layer.expert_widths.push_back(
          static_cast<std::int64_t>(expert.neurons.size()));
    }
    if (repair == Repair::kConstant && cuts_neurons(kept, config.layers[l])) {
      layer.has_constants = true;
    }
  }
  return result;
}

TrimResult trimmed_size(
    const model::ModelReader& reader,
    const artifact::TrimPlan& plan,
    Repair repair) {
  const model::ModelConfig config =
      trimmed_config(reader.config(), plan, repair);
  const artifact::ScoreFile no_scores;
  const SlicedWeights weights(reader, plan, no_scores, Repair::kNone);
  TrimResult result;
  result.before = artifact::model_size(
      reader.config(),
      [&](const model::WeightId& id) { return reader.dtype(id); });
  result.after = artifact::model_size(
      config, [&](const model::WeightId& id) { return weights.dtype(id); });
  return result;
}

TrimResult trim_model(
    const model::ModelReader& reader,
    const artifact::TrimPlan& plan,
    const artifact::ScoreFile& scores,
    const TrimRunOptions& options,
    const std::filesystem::path& folder) {
  require_scores_of(reader, scores);
  if (plan.model_fingerprint != scores.model_fingerprint) {
    throw UserError(
        "trim",
        "plan",
        "it was made of another model's scores; plan again with this one's");
  }
  const model::ModelConfig config =
      trimmed_config(reader.config(), plan, options.repair);
  if (options.repair == Repair::kConstant) {
    check_repair(scores, reader.config());
  }
  const TrimResult result = trimmed_size(reader, plan, options.repair);
  const SlicedWeights weights(reader, plan, scores, options.repair);
  Json record = plan.options;
  record["repair"] = name_of(options.repair);
  artifact::write_model(
      {.source = reader,
       .config = config,
       .dtype = [&](const model::WeightId& id) { return weights.dtype(id); },
       .tensor = [&](const model::WeightId& id) { return weights.tensor(id); },
       .record =
           {.stage = "trim",
            .input_fingerprint = scores.model_fingerprint,
            .options = record,
            .measured = result.to_json()},
       .label = "trim",
       .reporter = options.reporter},
      folder);
  plan.save(folder / "trim_plan.json");
  return result;
}

Json TrimResult::to_json() const {
  return {{"before", before.to_json()}, {"after", after.to_json()}};
}

}  // namespace fettle::trim
