// SPDX-License-Identifier: Apache-2.0
#include <fmt/format.h>

#include <map>

#include "cli/command.h"
#include "cli/session.h"
#include "cli/size_text.h"
#include "core/bytes.h"
#include "core/error.h"
#include "io/atomic_directory.h"
#include "sweep/micro_batches.h"
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
    {"none", trim::Repair::kNone},
    {"constant", trim::Repair::kConstant},
    {"ridge", trim::Repair::kRidge},
    {"ridge+constant", trim::Repair::kRidgeConstant}};
const std::map<std::string, bool> kRepairInputs{
    {"original", false}, {"trimmed", true}};

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
        "constant: each expert keeps the mean output of what it lost; ridge: "
        "its down_proj is fitted to its old output on --data");
    app.add_option("--data", data_, "JSONL files of the ridge repair");
    app.add_option("--tokens", tokens_, "Tokens of the ridge repair; 0: all")
        ->check(CLI::NonNegativeNumber)
        ->capture_default_str();
    app.add_option("--seq-len", seq_len_, "Tokens of a window")
        ->check(CLI::PositiveNumber)
        ->capture_default_str();
    app.add_option(
           "--ridge-lambda",
           ridge_.lambda,
           "How strongly ridge holds weights to what they were, relative to "
           "the mean square of a layer's activations")
        ->check(CLI::NonNegativeNumber)
        ->capture_default_str();
    add_named(
        app,
        "--repair-inputs",
        repair_inputs_,
        kRepairInputs,
        "trimmed: ridge fits a layer behind the trimmed layers below it");
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
    auto reader = std::make_unique<model::ModelReader>(model_);
    const auto repair = kRepairs.at(repair_);
    check_data(repair);
    const auto scores = artifact::ScoreFile::load(scores_);
    trim::require_scores_of(*reader, scores);
    fill_options(*reader);
    const auto plan = trim::plan_trim(scores, reader->config(), options_);
    io::AtomicDirectory folder(out_);
    trim::TrimRunOptions options{
        .repair = repair, .scores = &scores, .reporter = &session.reporter()};
    trim::TrimResult result;
    if (plan_only_) {
      result = trim::trimmed_size(*reader, plan, repair);
      plan.save(folder.path() / "trim_plan.json");
    } else if (trim::fits_down(repair)) {
      result = repair_and_trim(
          session, std::move(reader), plan, options, folder.path());
    } else {
      result = trim::trim_model(*reader, plan, options, folder.path());
    }
    folder.commit();
    Outcome outcome;
    outcome.json = result.to_json();
    outcome.json["out"] = out_;
    outcome.text = size_table(result.before, result.after);
    if (result.repair) outcome.text += repair_text(*result.repair);
    return outcome;
  }

 private:
  void check_data(trim::Repair repair) const {
    if (trim::fits_down(repair) && data_.empty() && !plan_only_) {
      throw UsageError(
          "trim", "--data", "repair ridge needs calibration data: name files");
    }
    if (!trim::fits_down(repair) && !data_.empty()) {
      throw UsageError(
          "trim", "--data", "only repair ridge reads data; leave it out");
    }
  }

  trim::TrimResult repair_and_trim(
      Session& session,
      std::unique_ptr<model::ModelReader> reader,
      const artifact::TrimPlan& plan,
      trim::TrimRunOptions options,
      const std::filesystem::path& folder) {
    ridge_.trimmed_inputs = kRepairInputs.at(repair_inputs_);
    ridge_.constant = trim::adds_constants(options.repair);
    const auto tokenizer = text::Tokenizer::load(model_);
    const auto data = sweep::load_calibration(
        data_files(data_),
        {tokenizer, session.sample_options(*reader), seq_len_},
        tokens_,
        session.seed());
    sweep::Workload workload;
    workload.tokens = sweep::count_tokens(data);
    workload.longest_sequence = sweep::longest(data);
    workload.extra_bytes = trim::repair_bytes(*reader, plan, ridge_);
    session.reporter().note(fmt::format(
        "repair: {} for the covariances of one layer",
        format_bytes(workload.extra_bytes)));
    const OpenModel opened = session.open(std::move(reader), workload);
    const auto sweep_options = opened.plan.sweep_options(nullptr);
    ridge_.activations = sweep_options.activations;
    const trim::RidgeInput input{
        *opened.model,
        sweep::micro_batches(
            data,
            opened.plan.micro_batch_tokens,
            opened.model->config().vocab_size),
        ridge_};
    options.ridge = &input;
    return trim::trim_model(opened.model->reader(), plan, options, folder);
  }

  static std::string repair_text(const trim::RepairReport& report) {
    return fmt::format(
        "{} experts fitted to {} tokens ({} of them saw fewer than they have "
        "neurons; {} saw none and are only cut)\n",
        report.refitted,
        report.tokens,
        report.scarce,
        report.unhit);
  }

  void fill_options(const model::ModelReader& reader) {
    if (!options_.keep && budget_.empty()) {
      throw UsageError("trim", "--keep", "give --keep or --budget");
    }
    options_.scope = kScopes.at(scope_);
    options_.unit = kUnits.at(unit_);
    options_.normalise = kNormalise.at(normalise_);
    if (budget_.empty()) return;
    options_.budget = parse_bytes(budget_);
    options_.bytes =
        trim::model_bytes(reader, {trim::adds_constants(kRepairs.at(repair_))});
  }

  std::string model_, scores_, out_, budget_;
  std::string scope_ = "global", unit_ = "neuron", normalise_ = "none";
  std::string repair_ = "none", repair_inputs_ = "original";
  std::vector<std::string> data_;
  std::int64_t tokens_ = 262144;
  std::int64_t seq_len_ = 512;
  trim::RidgeOptions ridge_;
  bool plan_only_ = false;
  trim::TrimOptions options_;
};

}  // namespace

std::unique_ptr<Command> make_trim() { return std::make_unique<Trim>(); }

}  // namespace fettle::cli
