// SPDX-License-Identifier: Apache-2.0
#include "cli/trim_flags.h"

#include <fmt/format.h>

#include <algorithm>
#include <map>

#include "cli/session.h"
#include "core/error.h"
#include "core/size_option.h"
#include "trim/kept_blocks.h"

namespace fettle::cli {
namespace {

const std::map<std::string, trim::Scope> kScopes{
    {"expert", trim::Scope::kExpert},
    {"layer", trim::Scope::kLayer},
    {"global", trim::Scope::kGlobal}};
const std::map<std::string, trim::TrimUnit> kUnits{
    {"neuron", trim::TrimUnit::kNeuron},
    {"expert", trim::TrimUnit::kExpert},
    {"mixed", trim::TrimUnit::kMixed}};
const std::map<std::string, trim::WidthRule> kWidths{
    {"free", trim::WidthRule::kFree},
    {"per-layer", trim::WidthRule::kPerLayer},
    {"uniform", trim::WidthRule::kUniform}};
const std::map<std::string, trim::Normalise> kNormalise{
    {"none", trim::Normalise::kNone},
    {"sqrt", trim::Normalise::kSqrt},
    {"layer_mean", trim::Normalise::kLayerMean}};
const std::map<std::string, trim::Repair> kRepairs{
    {"none", trim::Repair::kNone},
    {"constant", trim::Repair::kConstant},
    {"ridge", trim::Repair::kRidge},
    {"ridge+constant", trim::Repair::kRidgeConstant},
    {"joint", trim::Repair::kJoint}};
const std::map<std::string, trim::Merge> kMerges{
    {"none", trim::Merge::kNone},
    {"m_smoe", trim::Merge::kMSmoe},
    {"hc_smoe", trim::Merge::kHcSmoe}};
const std::map<std::string, bool> kRepairInputs{
    {"original", false}, {"trimmed", true}};

// An option whose values have names; `value` is the default by name, if any.
template <typename Value>
void add_named(
    CLI::App& app,
    const char* option,
    std::string& value,
    const std::map<std::string, Value>& names,
    const char* help) {
  std::vector<std::string> known;
  for (const auto& [name, unused] : names) known.push_back(name);
  auto* added =
      app.add_option(option, value, help)->check(CLI::IsMember(known));
  if (!value.empty()) added->capture_default_str();
}

void add_target(CLI::App& app, TrimFlags& f) {
  app.add_option(
         "--for",
         f.target,
         "Who will run the model: fettle; hf (transformers), gguf (llama.cpp) "
         "or vllm, whose experts have one width. Plans for that, and counts "
         "--budget in its format")
      ->check(CLI::IsMember(exporter::target_names()))
      ->capture_default_str();
}

void add_plan_flags(CLI::App& app, TrimFlags& f) {
  auto* keep = app.add_option(
      "--keep", f.options.keep, "Share of neurons or experts kept, (0, 1]");
  auto* budget = app.add_option(
      "--budget", f.budget, "Most bytes of weights, such as 11GiB");
  auto* plan = app.add_option(
      "--plan", f.plan, "Trim by this trim_plan.json; nothing is planned");
  budget->excludes(keep);
  plan->excludes(keep)->excludes(budget);
  app.add_option(
      "--score",
      f.score,
      "Score to rank by; by default obs, or the only one that --scores holds");
  add_target(app, f);
  add_named(
      app,
      "--scope",
      f.scope,
      kScopes,
      "What competes to be kept (default: global; with --for another program "
      "and --unit expert: layer)");
  add_named(
      app,
      "--unit",
      f.unit,
      kUnits,
      "What is cut; mixed: neurons and whole experts at one price");
  add_named(
      app,
      "--normalise",
      f.normalise,
      kNormalise,
      "How layers' scores are made comparable");
}

void add_width_flags(CLI::App& app, TrimFlags& f) {
  add_named(
      app,
      "--widths",
      f.widths,
      kWidths,
      "Which experts are equally wide (default: free; with --for another "
      "program: uniform)");
  // Bounds are the plan's to check, in words of its own.
  const auto count = [&](const char* name, auto& value, const char* help) {
    return app.add_option(name, value, help)->capture_default_str();
  };
  app.add_option(
      "--round",
      f.round,
      "Kept widths are multiples of this (default: 1; with --for what its "
      "kernels want: 16 hf, 32 gguf, 64 vllm)");
  count("--min-width", f.options.min_width, "Fewest neurons of an expert");
  count("--max-width", f.options.max_width, "Most neurons; 0: no limit");
  count(
      "--condenser-width",
      f.options.condenser_width,
      "Fewest neurons of an expert that is a condenser");
  count(
      "--price-tokens",
      f.options.price_tokens,
      "What a neuron costs to keep: 0, its bytes; 1, the products of the "
      "tokens "
      "that pass it, so that often chosen experts are cut too and the model "
      "runs faster; between, both");
  count(
      "--exchange-rate",
      f.options.exchange_rate,
      "Unit mixed: what a whole expert costs, relative to its neurons' sum");
}

void add_stored_flag(CLI::App& app, TrimFlags& f) {
  app.add_option(
         "--stored",
         f.stored,
         "Of a model that another tool stored in blocks of fp8 or MXFP4. keep: "
         "codes and scales as they are, neurons cut in whole blocks; bf16: "
         "values in 16 bits. By default keep where the cut leaves whole blocks")
      ->check(CLI::IsMember({"keep", "bf16"}));
}

void add_repair_flags(CLI::App& app, TrimFlags& f) {
  add_named(
      app,
      "--repair",
      f.repair,
      kRepairs,
      "constant: each expert keeps the mean output of what it lost; ridge: its "
      "down_proj is fitted to its old output on --data; joint: those of a "
      "layer are fitted together to the layer's old output. By default none "
      "without --data, with it ridge, or joint of --unit expert");
  add_named(
      app,
      "--merge",
      f.merge,
      kMerges,
      "Unit expert: average the experts that go into those that stay, which "
      "are the plan's (m_smoe) or chosen by clusters of outputs (hc_smoe)");
  app.add_option(
      "--data", f.data, fmt::format("Of the repair or merge. {}", kDataHelp));
  add_data_flags(app, f.data_flags);
  app.add_option("--tokens", f.tokens, "Tokens of these; 0: all")
      ->check(CLI::NonNegativeNumber)
      ->capture_default_str();
  app.add_option("--seq-len", f.seq_len, kWindowHelp)
      ->check(CLI::PositiveNumber);
  app.add_option(
         "--ridge-lambda",
         f.ridge.lambda,
         "How strongly ridge holds weights to what they were, relative to the "
         "mean square of a layer's activations")
      ->check(CLI::NonNegativeNumber)
      ->capture_default_str();
  app.add_option(
      "--eval-data",
      f.eval_data,
      "Held-out JSONL files: adds loss, KL and top-1 before and after");
  add_named(
      app,
      "--repair-inputs",
      f.repair_inputs,
      kRepairInputs,
      "trimmed: ridge fits a layer behind the trimmed layers below it");
}

}  // namespace

void add_trim_flags(CLI::App& app, TrimFlags& flags) {
  add_plan_flags(app, flags);
  add_width_flags(app, flags);
  add_stored_flag(app, flags);
  add_repair_flags(app, flags);
}

trim::Repair TrimFlags::repair_kind() const {
  if (!repair.empty()) return kRepairs.at(repair);
  const bool fits = !data.empty() && merge_kind() == trim::Merge::kNone;
  if (!fits) return trim::Repair::kNone;
  return unit == "expert" ? trim::Repair::kJoint : trim::Repair::kRidge;
}

exporter::Target TrimFlags::target_kind() const {
  return exporter::parse_target(target);
}

bool TrimFlags::plans_kept(const model::ModelReader& reader) const {
  if (!reader.has_coded() || stored == "bf16") return false;
  if (stored == "keep") return true;
  return unit == "expert" &&
         trim::why_not_kept(reader, {.refits = reads_data()}).empty();
}

bool TrimFlags::reads_data() const {
  return trim::fits_down(repair_kind()) || merge_kind() != trim::Merge::kNone;
}

trim::Merge TrimFlags::merge_kind() const { return kMerges.at(merge); }

trim::TrimOptions TrimFlags::plan_options() const {
  trim::TrimOptions result = options;
  const exporter::Target runs = target_kind();
  const bool alike = exporter::wants_uniform(runs);
  const bool whole = unit == "expert";
  result.unit = kUnits.at(unit);
  result.normalise = kNormalise.at(normalise);
  // Alike means: as many experts in each layer, and all of one width.
  result.scope = !scope.empty()   ? kScopes.at(scope)
                 : alike && whole ? trim::Scope::kLayer
                                  : trim::Scope::kGlobal;
  const bool joins = alike && !whole && result.scope == trim::Scope::kGlobal;
  result.widths = !widths.empty() ? kWidths.at(widths)
                  : joins         ? trim::WidthRule::kUniform
                                  : trim::WidthRule::kFree;
  result.round = round.value_or(whole ? 1 : exporter::width_unit(runs));
  if (!budget.empty()) result.budget = parse_size(budget, "--budget");
  return result;
}

trim::RidgeOptions TrimFlags::ridge_options() const {
  trim::RidgeOptions result = ridge;
  result.trimmed_inputs = kRepairInputs.at(repair_inputs);
  result.constant = trim::adds_constants(repair_kind());
  result.joint = repair_kind() == trim::Repair::kJoint;
  return result;
}

// A model of another shape than the target runs is no use there.
void TrimFlags::check_target() const {
  const exporter::Target runs = target_kind();
  if (!exporter::wants_uniform(runs)) return;
  const std::string name = "--for " + target;
  const bool whole = unit == "expert";
  if (widths == "free" || widths == "per-layer") {
    throw UsageError(
        "trim",
        name,
        "wants experts of one width; leave --widths " + widths + " out");
  }
  if (whole && scope == "global") {
    throw UsageError(
        "trim",
        name,
        "wants as many experts in each layer; leave --scope global out");
  }
  if (!whole && scope == "layer" && unit == "mixed") {
    throw UsageError(
        "trim", name, "wants layers alike; leave --scope layer out");
  }
  const bool loads = runs == exporter::Target::kGguf || whole;
  if (!loads && round && *round > 0 && *round % 8 != 0) {
    throw UsageError(
        "trim",
        name,
        fmt::format(
            "runs experts whose width is a multiple of 8, found --round {}; "
            "use 8, 16, 32 or more",
            *round));
  }
}

void TrimFlags::check(bool scores_given, bool plan_only) const {
  const auto refuse = [](const char* flag, const char* why) {
    throw UsageError("trim", flag, why);
  };
  if (plan.empty() && !options.keep && budget.empty()) {
    refuse("--keep", "give --keep, --budget or --plan");
  }
  check_target();
  if (plan_only && !eval_data.empty()) {
    refuse("--eval-data", "needs a model: leave --plan-only out");
  }
  if (!scores_given && plan.empty()) {
    refuse("--scores", "a plan is made from scores: name a folder");
  }
  if (!scores_given && repair_kind() == trim::Repair::kConstant) {
    refuse("--scores", "repair constant takes the scores' mean activations");
  }
  const bool merges = merge_kind() != trim::Merge::kNone;
  const bool repairs = repair_kind() != trim::Repair::kNone;
  if (merges && (unit != "expert" || repairs || !plan.empty())) {
    refuse("--merge", "goes with --unit expert and without --repair or --plan");
  }
  if (merges && plan_only) {
    refuse("--merge", "is no part of a plan; leave --plan-only out");
  }
  if (reads_data() && data.empty() && !plan_only) {
    refuse(
        "--data",
        "repair ridge and joint and merges need calibration data: name files");
  }
  if (!reads_data() && !data.empty()) {
    refuse(
        "--data",
        "only repair ridge and joint and merges read data; leave it out");
  }
  if (plan.empty()) {
    trim::check_trim_options(plan_options());
  }
}

bool wants_data(std::vector<std::string> arguments) {
  CLI::App app;
  TrimFlags flags;
  add_trim_flags(app, flags);
  app.allow_extras();
  std::ranges::reverse(arguments);  // CLI11's order
  try {
    app.parse(arguments);
  } catch (const CLI::ParseError&) {
    return false;  // reported when all of the command's arguments are parsed
  }
  if (!flags.data.empty()) return false;
  flags.data.emplace_back();
  return flags.reads_data();
}

}  // namespace fettle::cli
