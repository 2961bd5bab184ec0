// SPDX-License-Identifier: Apache-2.0
#include "tune/tune.h"
#include "cli/model_option.h"
#include "cli/mtp_option.h"

#include <fmt/format.h>

#include <filesystem>
#include <optional>

#include "cli/command.h"
#include "cli/inputs.h"
#include "cli/interrupt.h"
#include "cli/merge_text.h"
#include "cli/plan_text.h"
#include "cli/rank_process.h"
#include "cli/session.h"
#include "cli/shell_text.h"
#include "cli/targets.h"
#include "cli/tune_flags.h"
#include "core/error.h"
#include "io/atomic_directory.h"
#include "io/disk_speed.h"
#include "tune/adapter/merge_adapter.h"
#include "tune/adapter/peft_adapter.h"
#include "tune/best_evaluation.h"
#include "tune/epochs.h"
#include "tune/method/method.h"
#include "tune/method/method_lora.h"
#include "tune/method/option_checks.h"
#include "tune/run_plan.h"

namespace fettle::cli {
namespace {

std::string held_out_table(const tune::TuneResult& result) {
  Table table({"held out", "tokens", "nll before", "nll after"});
  for (std::size_t i = 0; i < result.held_out_after.size(); ++i) {
    const auto& after = result.held_out_after[i];
    const bool known = i < result.held_out_before.size();
    table.add(
        {after.name,
         fmt::format("{}", after.tokens),
         known ? fmt::format("{:.4f}", result.held_out_before[i].nll) : "",
         fmt::format("{:.4f}", after.nll)});
  }
  return result.held_out_after.empty() ? "" : table.text();
}

std::string choice_text(const tune::TuneResult& result) {
  if (result.best_step == 0) return "";
  const bool worse = !result.held_out_before.empty() &&
                     tune::mean_nll(result.held_out_after) >
                         tune::mean_nll(result.held_out_before);
  return fmt::format(
      "the adapter is that of step {}, the best on held-out data{}\n",
      result.best_step,
      worse ? ", yet worse than before training" : "");
}

std::string skipped_text(const tune::TuneResult& result) {
  std::string text;
  if (result.skipped_steps > 0) {
    text += fmt::format(
        "{} of the steps were skipped: they had no finite loss or gradient\n",
        result.skipped_steps);
  }
  if (result.masked_sequences > 0) {
    text += fmt::format(
        "{} packed sequences without a label to train on were left out\n",
        result.masked_sequences);
  }
  return text;
}

class Tune : public Command {
 public:
  void add_options(CLI::App& app) override {
    add_model_option(app, model_)->required();
    app.add_option("--data", data_, fmt::format("To train on. {}", kDataHelp))
        ->required();
    app.add_option("--eval-data", eval_data_, "Held-out data, as --data");
    add_data_flags(app, data_flags_);
    app.add_option(
           "--append-eos",
           append_eos_,
           "yes: documents of text end in the model's end token, so that it "
           "learns to stop; no: for texts that were cut anywhere. Held-out "
           "data is left as it is")
        ->check(CLI::IsMember({"yes", "no"}))
        ->capture_default_str();
    app.add_option(
        "--teacher",
        teacher_,
        "Model folder whose likeliest tokens are learned, see --kd-weight");
    out_option_ =
        app.add_option("--out", out_, "Folder for adapter and metrics");
    out_option_->required();
    merge_option_ =
        app.add_option("--merge", merged_, "Write the tuned model here too");
    add_mtp_option(app, mtp_);
    dtype_option_ =
        app.add_option("--merge-dtype", merge_.dtype, merge_dtype_help())
            ->check(CLI::IsMember({"keep", "float32"}))
            ->capture_default_str();
    peft_option_ = app.add_option(
        "--peft",
        peft_,
        "Write the pairs of lora here too, as PEFT loads them; merge --peft "
        "does so later");
    add_tune_flags(app, options_);
    epochs_option_ = app.add_option(
        "--epochs",
        epochs_,
        "Passes over the training data, in place of --steps");
    epochs_option_->check(CLI::PositiveNumber)->excludes("--steps");
  }

  void check(const Foreseen* foreseen) const override {
    tune::check_evaluation(options_, !eval_data_.empty());
    check_teacher();
    check_data("--data", data_);
    check_data("--eval-data", eval_data_);
    const bool old_out = foreseen != nullptr || goes_on_behind_training();
    // An empty name means an option that was not given.
    for (const CLI::Option* option :
         {out_option_, merge_option_, peft_option_}) {
      if (option->count() > 0 && option->results().front().empty()) {
        check_new_folder({option->get_name(), ""});
      }
    }
    if (dtype_option_->count() > 0 && merged_.empty()) {
      throw UsageError(
          "tune",
          "--merge-dtype",
          "expected --merge beside it, whose type it is, found none");
    }
    check_new_folders(
        {{"--out", old_out ? "" : out_},
         {"--merge", missing(merged_)},
         {"--peft", missing(peft_)}});
    if (foreseen != nullptr) check_model(foreseen->config);
  }

  bool divides() const override { return true; }

  Outcome run(Session& session) override {
    options_.seed = session.seed();
    auto reader = session.read(model_);
    options_ = tune::settled(options_, reader->config());
    check_model(reader->config());
    // Where steps are counted in epochs, their number follows from the data.
    const bool counts_epochs = epochs_option_->count() > 0;
    if (!counts_epochs) {
      if (const auto done = done_before(*reader, session)) return *done;
    }
    const auto tokenizer = session.tokenizer(model_);
    const auto sample_options = session.sample_options(*reader, data_flags_);
    text::Mixture mixture = training_data(tokenizer, sample_options);
    if (counts_epochs) {
      set_steps(mixture, reader->config(), session);
      if (const auto done = done_before(*reader, session)) return *done;
    }
    tell_data(mixture, session);
    session.require_same("the data", mixture.state().dump());
    const auto held_out = sweep::load_sets(
        data_files(eval_data_), {tokenizer, sample_options, options_.seq_len});
    for (const auto& set : held_out.sets) {
      session.require_same("the data", sweep::checksum(set.sequences));
    }
    sweep::Workload workload;
    workload.tokens = options_.tokens_per_step;
    workload.longest_sequence = options_.seq_len;
    workload.divide(session.team());
    workload.backward = true;
    workload.hold_globals = tune::trains_globals(options_, reader->config());
    tune::PartBytes parts = tune::part_bytes(
        options_, reader->config(), session.device(), session.team().ranks());
    parts.ram += static_cast<double>(session.team().partial_sums()) *
                 tune::layer_gradient_bytes(options_, reader->config());
    workload.extra_bytes = static_cast<std::int64_t>(parts.ram);
    workload.extra_vram_bytes = static_cast<std::int64_t>(parts.device);
    workload.extra_graph_bytes =
        tune::lora_graph_bytes(options_, reader->config());
    OpenModel opened = session.open(std::move(reader), workload);
    tune::TuneInput input{
        .model = *opened.model,
        .train = mixture,
        .held_out = held_out.sets,
        .out = session.leads() ? std::filesystem::path(out_)
                               : own_folder(opened.plan.workload.scratch),
        .micro_batch_tokens = opened.plan.micro_batch_tokens,
        .sweep = opened.plan.sweep_options(nullptr),
        .making = session.making()};
    if (!teacher_.empty()) add_teacher(input, workload, opened.plan, session);
    const tune::RunPlan plan = tell_plan(*opened.model, opened.plan, session);
    const tune::TuneResult result = train(input, session);
    if (!session.leads()) return Outcome{};
    Outcome made = outcome(result, session);
    made.json["plan"] = plan.to_json();
    return made;
  }

 private:
  // What is left to do where the adapter is whole, or nothing.
  std::optional<Outcome> done_before(
      const model::ModelReader& reader, Session& session) {
    std::optional<tune::TuneResult> done;
    if (session.leads() && goes_on_behind_training()) {
      done = tune::finished_run(out_, reader, options_);
    }
    if (session.as_rank_0(done ? 1 : 0) == 0) return std::nullopt;
    if (!session.leads()) return Outcome{};
    session.reporter().note("the adapter is whole already");
    return outcome(*done, session);
  }

  // A signal meanwhile has the state saved.
  tune::TuneResult train(tune::TuneInput& input, Session& session) const {
    const Interrupt interrupt(session.leads() ? kSavingNotice : nullptr);
    input.stop_requested = &interrupt.requested();
    const auto result = tune::tune(input, options_, session.reporter());
    if (result.stopped) note_stop();
    return result;
  }

  void check_model(const model::ModelConfig& config) const {
    tune::check_options(tune::settled(options_, config), config);
    if (!peft_.empty()) tune::check_peft(options_, config);
  }

  // The disk is timed where a step has to wait for it.
  tune::RunPlan tell_plan(
      const model::CausalLm& model,
      const sweep::SweepPlan& sweep,
      Session& session) const {
    tune::RunPlan plan =
        tune::plan_run(sweep, options_, model.reader(), !teacher_.empty());
    if (plan.moves()) {
      plan.disk_speed = io::measure_read(
          tune::largest_shard(model.reader()), std::uint64_t{64} << 20);
    }
    session.reporter().note(run_plan_table(plan));
    return plan;
  }

  void set_steps(
      text::Mixture& mixture,
      const model::ModelConfig& config,
      Session& session) {
    options_.steps = tune::steps_of_epochs(mixture, epochs_, options_);
    session.reporter().note(fmt::format(
        "{:g} epochs of {} samples are {} steps",
        epochs_,
        mixture.samples(),
        options_.steps));
    tune::check_options(options_, config);
  }

  void check_teacher() const {
    check_folder("--teacher", teacher_);
    if (!tune::has_method(options_, "router_kd") || !teacher_.empty()) return;
    throw UserError(
        "tune",
        "method",
        "expected a --teacher for router_kd, found none; name the model that "
        "this one was made from");
  }

  // The teacher has what the tuned model's globals and parts leave.
  void add_teacher(
      tune::TuneInput& input,
      sweep::Workload workload,
      const sweep::SweepPlan& plan,
      Session& session) const {
    input.teacher_fingerprint = model::ModelReader(teacher_).fingerprint();
    workload.backward = false;
    (session.device().is_cpu() ? workload.extra_bytes
                               : workload.extra_vram_bytes) +=
        plan.global_bytes;
    input.open_teacher = [this, workload, &session] {
      OpenModel opened = session.open(teacher_, workload);
      return tune::Teacher{
          std::move(opened.model),
          opened.plan.micro_batch_tokens,
          opened.plan.sweep_options(nullptr)};
    };
  }

  text::Mixture training_data(
      const text::Tokenizer& tokenizer,
      text::SampleOptions sample_options) const {
    sample_options.end_text = append_eos_ == "yes";
    std::vector<text::WeightedSamples> sources;
    for (const auto& file : data_files(data_)) {
      sources.push_back(
          {file.path.string(),
           file.weight,
           text::read_samples(file.path, tokenizer, sample_options)});
    }
    return text::Mixture(std::move(sources), {options_.seed, options_.seq_len});
  }

  void tell_data(const text::Mixture& mixture, Session& session) const {
    const std::int64_t sequences =
        options_.steps * (options_.tokens_per_step / options_.seq_len);
    session.tell_data(
        mixture.counts(),
        {.scored = "trained",
         .seq_len = options_.seq_len,
         .used = sequences * options_.seq_len,
         .draws = true});
  }

  std::string closing() const {
    const bool is_merged = !merged_.empty();
    std::vector<std::string> next{"fettle", "merge", model_, "--adapter", out_};
    if (is_merged) next = {"fettle", "quant", merged_, "--data", "calib.jsonl"};
    next.insert(next.end(), {"--out", is_merged ? "small" : "merged"});
    return closing_text(
        {.report = std::filesystem::path(out_) / "report.html", .next = next});
  }

  Outcome outcome(const tune::TuneResult& result, Session& session) {
    Outcome made;
    made.json = result.to_json();
    made.json["out"] = out_;
    made.stopped = result.stopped;
    if (result.stopped) {
      made.text = fmt::format(
          "stopped after step {}; the state is saved: go on with --resume\n",
          result.steps);
      return made;
    }
    made.text = fmt::format(
        "{} steps{}, {} weights trained, peak learning rate {}, loss {:.4f}\n"
        "{}{}{}",
        result.steps,
        result.stopped_early ? " (stopped early)" : "",
        result.trainable_weights,
        tune::rates_text(result),
        result.loss,
        skipped_text(result),
        choice_text(result),
        held_out_table(result));
    if (!missing(merged_).empty()) {
      merge_.mtp = artifact::parse_mtp(mtp_);
      const model::ModelReader base(model_);
      const auto report =
          tune::merge_adapter(base, out_, merge_, merged_, session.reporter());
      made.json["merge"] = report.to_json();
      made.json["merged"] = merged_;
      made.text += "\n" + merge_table(report);
    }
    if (!missing(peft_).empty()) {
      tune::write_peft_adapter(model::ModelReader(model_), out_, peft_);
      made.json["peft"] = peft_;
    }
    made.text += closing();
    return made;
  }

  // After a run that was killed while --merge or --peft was written.
  bool goes_on_behind_training() const {
    return options_.resume && !(merged_.empty() && peft_.empty()) &&
           std::filesystem::exists(
               std::filesystem::path(out_) / "adapter.json");
  }

  // A folder, unless such a run has written it.
  std::string missing(const std::string& folder) const {
    return goes_on_behind_training() && std::filesystem::exists(folder)
               ? ""
               : folder;
  }

  double epochs_ = 1.0;
  CLI::Option* epochs_option_ = nullptr;
  CLI::Option* out_option_ = nullptr;
  CLI::Option* merge_option_ = nullptr;
  CLI::Option* dtype_option_ = nullptr;
  CLI::Option* peft_option_ = nullptr;
  std::string model_, out_, merged_, peft_, teacher_, mtp_;
  std::vector<std::string> data_, eval_data_;
  DataFlags data_flags_;
  std::string append_eos_ = "yes";
  tune::TuneOptions options_;
  tune::MergeOptions merge_;
};

}  // namespace

std::unique_ptr<Command> make_tune() { return std::make_unique<Tune>(); }

}  // namespace fettle::cli
