// SPDX-License-Identifier: Apache-2.0
#include "cli/model_option.h"
#include "cli/mtp_option.h"
#include "trim/slice.h"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <numeric>

#include "artifact/manifest.h"
#include "artifact/run_state.h"
#include "cli/command.h"
#include "cli/inputs.h"
#include "cli/quality.h"
#include "cli/rank_process.h"
#include "cli/session.h"
#include "cli/shell_text.h"
#include "cli/size_text.h"
#include "cli/table.h"
#include "cli/target_weight.h"
#include "cli/targets.h"
#include "cli/trim_flags.h"
#include "cli/unread.h"
#include "core/bytes.h"
#include "core/error.h"
#include "core/size_option.h"
#include "io/atomic_directory.h"
#include "sweep/micro_batches.h"
#include "trim/kept_blocks.h"
#include "trim/kept_check.h"
#include "trim/plan.h"
#include "trim/report.h"

namespace fettle::cli {
namespace {

// What each sparse layer keeps.
std::string plan_table(
    const artifact::TrimPlan& plan, const model::ModelConfig& config) {
  Table table({"layer", "experts", "neurons", "width, min..median..max"});
  for (std::size_t l = 0; l < plan.layers.size(); ++l) {
    if (!config.layers[l].sparse) continue;
    std::vector<std::int64_t> widths;
    std::int64_t neurons = 0;
    for (const artifact::ExpertPlan& expert : plan.layers[l].experts) {
      widths.push_back(expert.width());
      neurons += widths.back();
    }
    std::ranges::sort(widths);
    table.add(
        {fmt::format("{}", l),
         fmt::format("{} of {}", widths.size(), config.layers[l].num_experts()),
         fmt::format("{} of {}", neurons, config.layers[l].total_width()),
         fmt::format(
             "{}..{}..{}",
             widths.front(),
             widths[widths.size() / 2],
             widths.back())});
  }
  return table.text();
}

std::string repair_text(const trim::RepairReport& report) {
  return fmt::format(
      "{} experts fitted to {} tokens ({} of them saw fewer than they have "
      "neurons; {} saw none and are only cut)\n",
      report.refitted,
      report.tokens,
      report.scarce,
      report.unhit);
}

class Trim : public Command {
 public:
  void add_options(CLI::App& app) override {
    parser_ = &app;
    add_model_option(app, model_)->required();
    app.add_option("--scores", scores_folder_, "Folder that analyze wrote");
    app.add_option("--out", out_, "Folder for the trimmed model")->required();
    add_trim_flags(app, flags_);
    add_mtp_option(app, mtp_);
    app.add_flag(
        "--plan-only", plan_only_, "Write trim_plan.json and no weights");
    app.add_option(
        "--report",
        report_,
        "With --plan-only: also write a report of the plan to this file");
  }

  void check(const Foreseen* foreseen) const override {
    flags_.check(!scores_folder_.empty(), plan_only_);
    if (!report_.empty() && !plan_only_) {
      throw UsageError(
          "trim",
          "--report",
          "goes with --plan-only; a trim writes report.html into --out");
    }
    refuse_unread(
        *parser_,
        {{"--score --scope --unit --normalise --widths --round --min-width "
          "--max-width --condenser-width --exchange-rate --price-tokens",
          flags_.plan.empty(),
          "a plan to make; --plan is carried out as it is"},
         {"--tokens", flags_.reads_data(), "--data"},
         {"--seq-len",
          flags_.reads_data() || !flags_.eval_data.empty(),
          "--data or --eval-data"},
         {"--ridge-lambda --repair-inputs",
          trim::fits_down(flags_.repair_kind()),
          "repair ridge or joint"},
         {"--exchange-rate", flags_.unit == "mixed", "--unit mixed"}});
    check_data("--data", flags_.data);
    check_data("--eval-data", flags_.eval_data);
    check_file("--plan", flags_.plan);
    if (!report_.empty()) check_new_file({"--report", report_});
    if (foreseen != nullptr) return check_score(foreseen->scores);
    check_folder("--scores", scores_folder_);
    check_new_folder({"--out", out_});
  }

  bool divides() const override { return true; }

  Outcome run(Session& session) override {
    const bool plain = flags_.data.empty() || plan_only_;
    if (plain && !session.work_alone()) return {};
    if (!plain && !trim::fits_down(flags_.repair_kind())) {
      session.require_undivided("trim --merge");
    }
    auto reader = session.read(model_);
    if (!scores_folder_.empty()) {
      scores_ = artifact::ScoreFile::load(scores_folder_);
      trim::require_scores_of(*reader, *scores_);
    }
    if (flags_.data.empty()) {
      session.require_ram(*reader, 3, /*outer_as_stored=*/true);
    }
    const auto held = held_out(
        session,
        *reader,
        {flags_.eval_data, flags_.seq_len, flags_.data_flags});
    check_stored(*reader);
    const artifact::TrimPlan plan = make_plan(session, *reader);
    stored_ = stored_in(session, *reader, plan);
    const std::string table = plan_table(plan, reader->config());
    const TargetWeight weight = weighed(session, *reader, plan);
    const std::string title = reader->name();
    const model::ModelConfig config = reader->config();
    io::AtomicDirectory folder(
        session.leads() ? std::filesystem::path(out_)
                        : own_folder(std::filesystem::temp_directory_path()),
        artifact::plain_output());
    const Trimmed done =
        carry_out(session, std::move(reader), plan, folder.path());
    if (!session.leads()) return {};
    const trim::TrimResult& result = done.result;
    Outcome outcome;
    outcome.json = result.to_json();
    if (!flags_.data.empty() && !plan_only_) {
      artifact::add_measured(folder.path(), "data", data_names(flags_.data));
    }
    Json quality;
    if (!held.empty()) {
      session.work_alone();
      quality = measure_quality(session, {held, model_, folder.path()});
      outcome.json["quality"] = quality;
      artifact::add_measured(folder.path(), "quality", quality);
    }
    const auto page = plan_only_ ? std::filesystem::path(report_)
                                 : folder.path() / "report.html";
    if (!page.empty()) {
      trim::write_report(
          page,
          {.title = title,
           .config = config,
           .plan = done.plan,
           .result = result,
           .repair = flags_.repair_kind(),
           .making = session.making(),
           .quality = quality});
    }
    folder.commit();
    outcome.json["out"] = out_;
    outcome.json["target"] = weight.to_json();
    outcome.text = size_table(result.before, result.after);
    if (plan_only_) outcome.text += table;
    outcome.text += target_text(weight);
    outcome.text += chosen_text(plan);
    if (result.repair) outcome.text += repair_text(*result.repair);
    if (!held.empty()) outcome.text += quality_table(quality);
    outcome.text += closing();
    return outcome;
  }

 private:
  // A merge may choose other experts than its plan.
  struct Trimmed {
    artifact::TrimPlan plan;
    trim::TrimResult result;
  };

  // Writes what the run is to write but the report.
  Trimmed carry_out(
      Session& session,
      std::unique_ptr<model::ModelReader> reader,
      const artifact::TrimPlan& plan,
      const std::filesystem::path& folder) const {
    const trim::TrimRunOptions options{
        .repair = flags_.repair_kind(),
        .stored = stored_,
        .scores = scores_ ? &*scores_ : nullptr,
        .mtp = artifact::parse_mtp(mtp_),
        .reporter = &session.reporter()};
    if (plan_only_) {
      plan.save(folder / "trim_plan.json");
      return {
          plan,
          trim::trimmed_size(
              *reader, plan, options.repair, stored_, options.mtp)};
    }
    if (!flags_.data.empty()) {
      return trim_with_data(session, std::move(reader), plan, options, folder);
    }
    return {plan, trim::trim_model(*reader, plan, options, folder)};
  }

  std::string closing() const {
    const std::filesystem::path out(out_);
    if (plan_only_) {
      return closing_text(
          {.report = report_,
           .next = {
               "fettle",
               "trim",
               model_,
               "--plan",
               (out / "trim_plan.json").string(),
               "--out",
               "trimmed"}});
    }
    return closing_text(
        {.report = out / "report.html",
         .next = {
             "fettle",
             "tune",
             out_,
             "--data",
             "train.jsonl",
             "--out",
             "tuned",
             "--merge",
             "merged"}});
  }

  // Checks --score against `scores`, which are yet to be made.
  void check_score(const std::vector<std::string>& scores) const {
    if (!flags_.plan.empty()) return;
    if (flags_.score.empty()) {
      trim::default_score(scores);
    } else if (std::ranges::find(scores, flags_.score) == scores.end()) {
      throw UserError(
          "trim",
          "score " + flags_.score,
          fmt::format(
              "is not computed by the analyze stage, which makes {}; name it "
              "in its 'scores'",
              fmt::join(scores, ", ")));
    }
  }

  void check_stored(const model::ModelReader& reader) const {
    if (flags_.stored.empty()) return;
    const std::string subject = "stored " + flags_.stored;
    if (!reader.has_coded()) {
      throw UserError(
          "trim",
          subject,
          "is for models that another tool stored in few bits; this one's "
          "weights are not: leave --stored out");
    }
    if (flags_.stored != "keep") return;
    const std::string why =
        trim::why_not_kept(reader, {.refits = flags_.reads_data()});
    if (why.empty()) return;
    throw UserError(
        "trim", subject, why + "; use --stored bf16 for values in 16 bits");
  }

  // How coded weights are written; a note says it where no option did.
  trim::Stored stored_in(
      Session& session,
      const model::ModelReader& reader,
      const artifact::TrimPlan& plan) const {
    if (!reader.has_coded() || flags_.stored == "bf16") {
      return trim::Stored::kPlain;
    }
    const trim::KeptChanges changes{.refits = flags_.reads_data()};
    if (flags_.stored == "keep") {
      trim::require_kept(reader, plan, changes);
      return trim::Stored::kKeep;
    }
    const std::string why = trim::why_not_kept(reader, plan, changes);
    session.reporter().note(
        why.empty()
            ? std::string(
                  "trim: codes and scales stay as they are stored (--stored "
                  "bf16 would write values in 16 bits)")
            : "trim: writes values in 16 bits: " + why);
    return why.empty() ? trim::Stored::kKeep : trim::Stored::kPlain;
  }

  // What the trimmed model will weigh where it is to run, reported before any
  // work. Refused where it could not be exported to there.
  TargetWeight weighed(
      Session& session,
      const model::ModelReader& reader,
      const artifact::TrimPlan& plan) const {
    const bool merges = flags_.merge_kind() != trim::Merge::kNone;
    const TargetWeight weight = weigh(
        TrimmedModel{reader, plan, flags_.repair_kind(), merges, stored_},
        flags_.target_kind());
    session.reporter().note("trim: the model will weigh " + weight.text());
    const bool bounded = flags_.plan.empty() && !flags_.budget.empty();
    if (bounded && weight.bytes > parse_size(flags_.budget, "--budget")) {
      throw UserError(
          "trim",
          "budget",
          fmt::format(
              "the nearest shape weighs {}, more than {}; use a larger "
              "--budget or a smaller --round",
              weight.text(),
              flags_.budget));
    }
    return weight;
  }

  std::string target_text(const TargetWeight& weight) const {
    if (!exporter::wants_uniform(weight.target)) return "";
    return fmt::format(
        "{}, by fettle export {} --format {}\n",
        weight.text(),
        out_,
        exporter::format_name(weight.format));
  }

  // What was chosen for those who did not say.
  std::string chosen_text(const artifact::TrimPlan& plan) const {
    std::string text = fmt::format(
        "ranked by {}, repair {}",
        plan.options.value("score", std::string("a plan")),
        trim::name_of(flags_.repair_kind()));
    const bool unsaid = flags_.repair.empty() && flags_.merge == "none";
    if (unsaid && flags_.data.empty()) {
      text += " (with --data, ridge would fit what is left)";
    }
    return text + "\n";
  }

  artifact::TrimPlan make_plan(
      Session& session, const model::ModelReader& reader) const {
    if (!flags_.plan.empty()) {
      auto plan = artifact::TrimPlan::load(flags_.plan);
      trim::require_plan_of(reader, plan);
      return plan;
    }
    trim::TrimOptions options = flags_.plan_options();
    options.score =
        flags_.score.empty() ? trim::default_score(*scores_) : flags_.score;
    const bool kept = flags_.plans_kept(reader);
    if (kept && options.unit != trim::TrimUnit::kExpert) {
      options.block = trim::kept_unit(reader);
      if (!flags_.round) options.round = std::lcm(options.round, options.block);
    }
    options.bytes = bytes_for(
        reader,
        flags_.target_kind(),
        {.constants = trim::adds_constants(flags_.repair_kind()),
         .stored = kept ? trim::Stored::kKeep : trim::Stored::kPlain});
    options.condensers = trim::condensers_of(reader.config());
    const auto plan = trim::plan_trim(*scores_, reader.config(), options);
    trim::require_neurons(plan, reader.config(), options);
    const std::string note = trim::share_note(plan, reader.config(), options);
    if (!note.empty()) session.reporter().note("trim: " + note);
    return plan;
  }

  Trimmed trim_with_data(
      Session& session,
      std::unique_ptr<model::ModelReader> reader,
      const artifact::TrimPlan& plan,
      trim::TrimRunOptions options,
      const std::filesystem::path& folder) const {
    const bool merges = flags_.merge_kind() != trim::Merge::kNone;
    trim::RidgeOptions ridge = flags_.ridge_options();
    const auto data =
        session
            .calibration(
                *reader,
                {flags_.data, flags_.seq_len, flags_.tokens, flags_.data_flags})
            .sequences;
    sweep::Workload workload;
    workload.add(data);
    if (merges) {
      const std::int64_t bytes = trim::merge_bytes(reader->config());
      workload.add(sweep::StageMemory{bytes, bytes});  // at most
    } else {
      const auto memory = trim::repair_memory(*reader, plan, ridge);
      workload.add(memory);
      workload.extra_bytes +=
          session.team().partial_sums() * memory.device_bytes;
    }
    workload.divide(session.team());
    session.reporter().note(fmt::format(
        "{}: {} beside the sweep's own memory",
        merges ? "merge" : "repair",
        format_bytes(workload.extra_bytes)));
    const OpenModel opened = session.open(std::move(reader), workload);
    const auto sweep_options = opened.plan.sweep_options(&session.reporter());
    ridge.activations = sweep_options.activations;
    auto own = sweep::own_micro_batches(
        data,
        opened.plan.micro_batch_tokens,
        opened.model->config().vocab_size,
        session.team());
    auto& batches = own.batches;
    ridge.division = {session.team(), own.shard_ends};
    if (merges) {
      const auto merge = trim::plan_merge(
          {*opened.model, std::move(batches), sweep_options},
          plan,
          flags_.merge_kind());
      options.merged = &merge.experts;
      return {
          merge.plan,
          trim::trim_model(
              opened.model->reader(), merge.plan, options, folder)};
    }
    const trim::RidgeInput input{*opened.model, std::move(batches), ridge};
    options.ridge = &input;
    return {
        plan, trim::trim_model(opened.model->reader(), plan, options, folder)};
  }

  const CLI::App* parser_ = nullptr;
  std::string model_, scores_folder_, out_, report_, mtp_;
  TrimFlags flags_;
  bool plan_only_ = false;
  trim::Stored stored_ = trim::Stored::kPlain;
  std::optional<artifact::ScoreFile> scores_;
};

}  // namespace

std::unique_ptr<Command> make_trim() { return std::make_unique<Trim>(); }

}  // namespace fettle::cli
