// SPDX-License-Identifier: Apache-2.0
#include "trim/slice.h"

#include <fmt/format.h>

#include "core/error.h"
#include "trim/condensers.h"
#include "trim/cut_layer.h"
#include "trim/kept_blocks.h"
#include "trim/plan.h"
#include "trim/sliced_weights.h"

namespace fettle::trim {
namespace {

void check_means(
    const artifact::ScoreFile* scores, const model::ModelConfig& config) {
  for (std::size_t l = 0; l < config.layers.size(); ++l) {
    const model::LayerConfig& layer = config.layers[l];
    if (!layer.sparse) continue;
    const bool present =
        scores != nullptr && scores->tokens > 0 && l < scores->layers.size() &&
        scores->layers[l].widths == layer.expert_widths &&
        scores->layers[l].mean_h.defined() &&
        scores->layers[l].mean_h.numel() == layer.total_width();
    if (present) continue;
    throw UserError(
        "trim",
        fmt::format("layer {}", l),
        "repair constant needs the mean activations of this model's scores; "
        "run fettle analyze, or choose repair none");
  }
}

// Throws, before anything is written, what can be known by then.
void check_input(
    const model::ModelReader& reader,
    const artifact::TrimPlan& plan,
    const TrimRunOptions& options) {
  if (options.scores != nullptr) require_scores_of(reader, *options.scores);
  require_plan_of(reader, plan);
  if (options.repair == Repair::kConstant) {
    check_means(options.scores, reader.config());
  }
  if (options.merged != nullptr && options.repair != Repair::kNone) {
    throw UserError(
        "trim", "merge", "merged experts are not repaired; use repair none");
  }
  if (options.stored == Stored::kKeep) {
    const bool refits = fits_down(options.repair) || options.merged != nullptr;
    require_kept(reader, plan, {.refits = refits});
  }
  if (fits_down(options.repair) && options.ridge == nullptr) {
    throw UserError(
        "trim",
        fmt::format("repair {}", name_of(options.repair)),
        "needs calibration data; name files with --data");
  }
}

// What the manifest says of the options, but for those of ridge.
Json record_of(
    const model::ModelReader& reader,
    const artifact::TrimPlan& plan,
    const TrimRunOptions& options) {
  Json record = plan.options;
  record["repair"] = name_of(options.repair);
  if (reader.has_coded()) {
    record["stored"] = options.stored == Stored::kKeep ? "keep" : "bf16";
  }
  return record;
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
    layer.condensers = renumbered(layer.condensers, kept);
    if (layer.condensers.size() < config.layers[l].condensers.size()) {
      throw UserError(
          "trim",
          fmt::format("layer {}", l),
          "the plan removes an expert that works on every token; plan again: "
          "planning spares condensers");
    }
    layer.expert_widths.clear();
    for (const artifact::ExpertPlan& expert : kept.experts) {
      layer.expert_widths.push_back(expert.width());
    }
    if (adds_constants(repair) &&
        cuts_neurons(kept, config.layers[l].expert_widths)) {
      layer.has_constants = true;
    }
  }
  return result;
}

TrimResult trimmed_size(
    const model::ModelReader& reader,
    const artifact::TrimPlan& plan,
    Repair repair,
    Stored stored,
    artifact::Mtp mtp) {
  const model::ModelConfig config =
      trimmed_config(reader.config(), plan, repair);
  const SlicedWeights weights(reader, plan, {.stored = stored});
  const artifact::CarriedCopy carried(reader, config, mtp);
  TrimResult result;
  result.before = artifact::stored_size(reader);
  result.after = artifact::model_size(
      config,
      [&](const model::WeightId& id) { return weights.form(id); },
      carried.bytes());
  return result;
}

TrimResult trim_model(
    const model::ModelReader& reader,
    const artifact::TrimPlan& plan,
    const TrimRunOptions& options,
    const std::filesystem::path& folder) {
  check_input(reader, plan, options);
  const model::ModelConfig config =
      trimmed_config(reader.config(), plan, options.repair);
  TrimResult result =
      trimmed_size(reader, plan, options.repair, options.stored, options.mtp);
  SlicedWeights::Making repairs{.stored = options.stored};
  if (options.repair == Repair::kConstant) repairs.means = options.scores;
  std::optional<RepairSweep> sweep;
  std::optional<MergedWeights> merged;
  if (options.merged != nullptr) {
    merged.emplace(reader, *options.merged);
    repairs.merged = &*merged;
  }
  Json record = record_of(reader, plan, options);
  record["mtp"] = artifact::mtp_name(options.mtp);
  if (fits_down(options.repair)) {
    RidgeOptions ridge = options.ridge->options;
    ridge.constant = options.repair == Repair::kRidgeConstant;
    ridge.joint = options.repair == Repair::kJoint;
    record["ridge_lambda"] = ridge.lambda;
    record["repair_inputs"] =
        ridge.trimmed_inputs || ridge.joint ? "trimmed" : "original";
    sweep.emplace(
        options.ridge->model, plan, config, options.ridge->data, ridge);
    repairs.sweep = &*sweep;
    if (!ridge.division.team.leads()) {
      // Rank 0 writes what they fit together.
      for (std::int64_t l = 0; l < config.num_layers(); ++l) sweep->layer(l);
      result.repair = sweep->report();
      return result;
    }
  }
  const SlicedWeights weights(reader, plan, repairs);
  artifact::write_model(
      {.source = reader,
       .config = config,
       .form = [&](const model::WeightId& id) { return weights.form(id); },
       .tensor = [&](const model::WeightId& id) { return weights.tensor(id); },
       .record =
           {.stage = "trim",
            .input_fingerprint = plan.model_fingerprint,
            .options = record,
            .measured = result.to_json()},
       .mtp = options.mtp,
       .label = "trim",
       .reporter = options.reporter},
      folder);
  if (sweep) {
    result.repair = sweep->report();
    artifact::set_measured(folder, result.to_json());
  }
  plan.save(folder / "trim_plan.json");
  return result;
}

Json TrimResult::to_json() const {
  Json json = {{"before", before.to_json()}, {"after", after.to_json()}};
  if (repair) json["repair"] = repair->to_json();
  return json;
}

}  // namespace fettle::trim
