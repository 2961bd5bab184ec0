// SPDX-License-Identifier: Apache-2.0
#include <fmt/format.h>

#include <map>

#include "cli/command.h"
#include "cli/session.h"
#include "cli/size_text.h"
#include "core/bytes.h"
#include "core/error.h"
#include "io/atomic_directory.h"
#include "trim/plan.h"
#include "trim/slice.h"

namespace fettle::cli {
namespace {

const std::map<std::string, trim::Scope> kScopes{
    {"expert", trim::Scope::kExpert},
    {"layer", trim::Scope::kLayer},
    {"global", trim::Scope::kGlobal}};
const std::map<std::string, trim::Unit> kUnits{
    {"neuron", trim::Unit::kNeuron}, {"expert", trim::Unit::kExpert}};
const std::map<std::string, trim::Normalise> kNormalise{
    {"none", trim::Normalise::kNone},
    {"sqrt", trim::Normalise::kSqrt},
    {"layer_mean", trim::Normalise::kLayerMean}};
const std::map<std::string, trim::Repair> kRepairs{
    {"none", trim::Repair::kNone}, {"constant", trim::Repair::kConstant}};

// An option whose values have names; `value` is the default by name.
template <typename Value>
void add_named(
    CLI::App& app,
    const char* option,
    std::string& value,
    const std::map<std::string, Value>& names,
    const char* help) {
  std::vector<std::string> known;
  for (const auto& [name, unused] : names) known.push_back(name);
  app.add_option(option, value, help)
      ->check(CLI::IsMember(known))
      ->capture_default_str();
}

class Trim : public Command {
 public:
  void add_options(CLI::App& app) override {
    app.add_option("MODEL", model_, "Model folder")->required();
    app.add_option("--scores", scores_, "Folder that analyze wrote")
        ->required();
    app.add_option("--out", out_, "Folder for the trimmed model")->required();
    auto* keep = app.add_option(
        "--keep", options_.keep, "Share of neurons or experts kept, (0, 1]");
    app.add_option("--budget", budget_, "Most bytes of weights, such as 11GiB")
        ->excludes(keep);
    app.add_option("--score", options_.score, "Score to rank by")
        ->capture_default_str();
    add_named(app, "--scope", scope_, kScopes, "What competes to be kept");
    add_named(app, "--unit", unit_, kUnits, "What is cut");
    add_named(
        app,
        "--normalise",
        normalise_,
        kNormalise,
        "How layers' scores are made comparable");
    add_named(
        app,
        "--repair",
        repair_,
        kRepairs,
        "constant: each expert keeps the mean output of what it lost");
    app.add_option(
           "--round", options_.round, "Kept widths are multiples of this")
        ->check(CLI::PositiveNumber)
        ->capture_default_str();
    app.add_option(
           "--min-width", options_.min_width, "Fewest neurons of an expert")
        ->check(CLI::NonNegativeNumber)
        ->capture_default_str();
    app.add_option(
           "--max-width", options_.max_width, "Most neurons; 0: no limit")
        ->check(CLI::NonNegativeNumber)
        ->capture_default_str();
    app.add_flag(
        "--plan-only", plan_only_, "Write trim_plan.json and no weights");
  }

  Outcome run(Session& session) override {
    const model::ModelReader reader(model_);
    const auto scores = artifact::ScoreFile::load(scores_);
    trim::require_scores_of(reader, scores);
    fill_options(reader);
    const auto repair = kRepairs.at(repair_);
    const auto plan = trim::plan_trim(scores, reader.config(), options_);
    io::AtomicDirectory folder(out_);
    trim::TrimResult result;
    if (plan_only_) {
      result = trim::trimmed_size(reader, plan, repair);
      write_plan(folder.path(), plan);
    } else {
      result = trim::trim_model(
          reader, plan, scores, {repair, &session.reporter()}, folder.path());
    }
    folder.commit();
    Outcome outcome;
    outcome.json = result.to_json();
    outcome.json["out"] = out_;
    outcome.text = size_table(result.before, result.after);
    return outcome;
  }

 private:
  void fill_options(const model::ModelReader& reader) {
    if (!options_.keep && budget_.empty()) {
      throw UsageError("trim", "--keep", "give --keep or --budget");
    }
    options_.scope = kScopes.at(scope_);
    options_.unit = kUnits.at(unit_);
    options_.normalise = kNormalise.at(normalise_);
    if (budget_.empty()) return;
    options_.budget = parse_bytes(budget_);
    options_.bytes = trim::model_bytes(reader, {repair_ == "constant"});
  }

  static void write_plan(
      const std::filesystem::path& folder, const artifact::TrimPlan& plan) {
    std::ofstream file(folder / "trim_plan.json");
    file << plan.to_json().dump(1) << "\n";
    file.flush();
    if (!file) throw UserError("trim", folder.string(), "cannot be written");
  }

  std::string model_, scores_, out_, budget_;
  std::string scope_ = "global", unit_ = "neuron", normalise_ = "none";
  std::string repair_ = "none";
  bool plan_only_ = false;
  trim::TrimOptions options_;
};

}  // namespace

std::unique_ptr<Command> make_trim() { return std::make_unique<Trim>(); }

}  // namespace fettle::cli
