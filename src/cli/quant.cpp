// SPDX-License-Identifier: Apache-2.0
#include "cli/model_option.h"
#include "cli/mtp_option.h"
#include "quant/quantize.h"

#include <fmt/format.h>

#include <optional>

#include "artifact/manifest.h"
#include "artifact/row_prices.h"
#include "artifact/run_state.h"
#include "artifact/shard_set.h"
#include "cli/command.h"
#include "cli/inputs.h"
#include "cli/quality.h"
#include "cli/quant_bits.h"
#include "cli/quant_flags.h"
#include "cli/quant_target.h"
#include "cli/quant_text.h"
#include "cli/rank_process.h"
#include "cli/resume_flags.h"
#include "cli/session.h"
#include "cli/shell_text.h"
#include "cli/size_text.h"
#include "cli/targets.h"
#include "cli/unread.h"
#include "core/error.h"
#include "core/size_option.h"
#include "io/atomic_directory.h"
#include "io/checksum.h"
#include "quant/memory.h"
#include "quant/report.h"
#include "sweep/micro_batches.h"

namespace fettle::cli {
namespace {

std::string hash_of(const std::vector<model::Sequence>& data) {
  io::Hasher hasher;
  for (const model::Sequence& sequence : data) {
    hasher.update(std::as_bytes(std::span(sequence.ids)));
    hasher.update(std::as_bytes(std::span(sequence.document_starts)));
    hasher.update("\n");
  }
  return hasher.digest();
}

class Quant : public Command {
 public:
  void add_options(CLI::App& app) override {
    parser_ = &app;
    add_model_option(app, model_)->required();
    app.add_option("--out", out_, "Folder for the quantized model")->required();
    add_mtp_option(app, mtp_);
    add_quant_flags(app, flags_);
    add_resume_flags(app, resume_, restart_);
  }

  void check(const Foreseen* foreseen) const override {
    flags_.check();
    const bool fits = flags_.gptq().method == quant::Method::kGptq;
    refuse_unread(
        *parser_,
        {{"--tokens --calibrate --plain-gate --starved --moments",
          !flags_.data.empty(),
          "--data"},
         {"--seq-len",
          !flags_.data.empty() || !flags_.eval_data.empty(),
          "--data or --eval-data"},
         {"--damping --act-order --refine", fits, "--method gptq"},
         {"--candidates --allocate --prices",
          flags_.allocates(),
          "--budget or a number of --bits"}});
    check_data("--data", flags_.data);
    check_data("--eval-data", flags_.eval_data);
    check_file("--plan", flags_.plan);
    check_file("--errors", flags_.errors);
    if (!flags_.prices.empty()) {
      check_file("--prices", flags_.prices + "/" + artifact::kRowPricesFile);
    }
    if (foreseen == nullptr) check_new_folder({"--out", out_});
  }

  bool divides() const override { return true; }

  Outcome run(Session& session) override {
    if (flags_.data.empty()) {
      if (!session.work_alone()) return {};
    } else if (flags_.allocates()) {
      session.require_undivided("--budget with --data");
    }
    auto reader = session.read(model_);
    const std::string title = reader->name();
    settle(flags_, *reader);
    const auto held = held_out(
        session,
        *reader,
        {flags_.eval_data, flags_.seq_len, flags_.data_flags});
    if (!flags_.allocates() && flags_.plan.empty()) {
      tell(session, weigh(flags_, *reader));
    }
    io::AtomicDirectory folder =
        session.leads()
            ? io::AtomicDirectory(
                  out_, artifact::resumable_output(resume_, restart_))
            : io::AtomicDirectory(
                  own_folder(std::filesystem::temp_directory_path()),
                  artifact::plain_output());
    // Damage would show up behind hours of work.
    if (session.leads()) checked_values(*reader, session.reporter(), "check");
    Outcome outcome = quantize(session, std::move(reader), folder);
    if (!session.leads()) return {};
    if (!flags_.data.empty() && result_) {
      artifact::add_measured(folder.path(), "data", data_names(flags_.data));
    }
    Json quality;
    if (!held.empty()) {
      session.work_alone();
      quality = measure_quality(session, {held, model_, folder.path()});
      outcome.json["quality"] = quality;
      outcome.text += quality_table(quality);
      artifact::add_measured(folder.path(), "quality", quality);
    }
    if (result_) {
      quant::write_report(
          folder.path() / "report.html",
          {title, *result_, session.making(), quality});
    }
    folder.leave_out(std::string(artifact::kShardIdentity));
    folder.commit();
    outcome.json["out"] = out_;
    if (weight_) {
      outcome.json["target"] = weight_->to_json();
      outcome.text += target_text(*weight_);
    }
    outcome.text += closing();
    return outcome;
  }

 private:
  Outcome quantize(
      Session& session,
      std::unique_ptr<model::ModelReader> reader,
      io::AtomicDirectory& folder) {
    quant::QuantOptions options = options_of(session, *reader);
    choose(session, *reader, folder, options);
    try {
      if (flags_.data.empty()) {
        session.require_ram(quant::quant_bytes(*reader, options));
        return carry_out(session, *reader, options, nullptr, folder);
      }
      return with_data(session, std::move(reader), std::move(options), folder);
    } catch (const quant::NotFiniteError&) {
      folder.abandon();
      throw;
    }
  }

  std::string closing() const {
    const std::filesystem::path out(out_);
    if (flags_.plan_only) {
      return closing_text(
          {.next = {
               "fettle",
               "quant",
               model_,
               "--plan",
               (out / "quant_plan.json").string(),
               "--out",
               "small"}});
    }
    return closing_text(
        {.report = out / "report.html",
         .next = {"fettle", "generate", out_, "--prompt", "TEXT"}});
  }

  // Before any pass over data.
  void tell(Session& session, const TargetWeight& weight) {
    weight_ = weight;
    session.reporter().note("quant: the model will weigh " + weight.text());
  }

  std::string target_text(const TargetWeight& weight) const {
    if (!exporter::wants_uniform(weight.target)) return "";
    return fmt::format(
        "{}, by fettle export {} --format {}\n",
        weight.text(),
        out_,
        exporter::format_name(weight.format));
  }

  quant::QuantOptions options_of(
      Session& session, const model::ModelReader& reader) const {
    quant::QuantOptions options;
    options.mtp = artifact::parse_mtp(mtp_);
    options.gptq = flags_.gptq();
    options.input_fingerprint = reader.fingerprint();
    options.reporter = &session.reporter();
    options.identity = options.gptq.to_json();
    options.identity["mtp"] = mtp_;
    options.identity["model"] = options.input_fingerprint;
    options.identity["version"] = std::string(artifact::version());
    return options;
  }

  // By the parts' schemes.
  void choose(quant::QuantOptions& options) const {
    const quant::Schemes schemes = flags_.schemes();
    options.scheme = [schemes](const model::WeightId& id) {
      return schemes.at(*quant::part_of(id.role));
    };
    for (const auto& [part, scheme] : schemes) {
      options.identity["schemes"][std::string(quant::part_name(part))] =
          quant::scheme_name(scheme);
    }
  }

  static SchemeOf scheme_of(const artifact::QuantPlan& plan) {
    return [plan](const model::WeightId& id) {
      return quant::parse_scheme(plan.scheme(id));
    };
  }

  // The schemes of all weights, where they are known before any pass.
  void choose(
      Session& session,
      const model::ModelReader& reader,
      const io::AtomicDirectory& folder,
      quant::QuantOptions& options) {
    if (flags_.allocates()) return;
    if (flags_.plan.empty()) {
      choose(options);
      return;
    }
    const auto plan = artifact::QuantPlan::load(flags_.plan);
    artifact::require_plan_of(reader, plan);
    tell(session, weigh(flags_, reader, scheme_of(plan)));
    if (session.leads()) plan.save(folder.path() / "quant_plan.json");
    choose(options, plan);
  }

  // By a plan, which is kept beside the model.
  static void choose(
      quant::QuantOptions& options, const artifact::QuantPlan& plan) {
    options.scheme = scheme_of(plan);
    io::Hasher hasher;
    hasher.update(plan.to_json().dump());
    options.identity["plan"] = hasher.digest();
  }

  Outcome carry_out(
      Session& session,
      const model::ModelReader& reader,
      quant::QuantOptions options,
      quant::Calibrated* data,
      const io::AtomicDirectory& folder) {
    Outcome outcome;
    if (flags_.allocates()) {
      const quant::BitPlan plan = plan_within_budget(
          {flags_, options.identity, options.moment_bytes, session.reporter()},
          reader,
          data,
          folder.path());
      outcome.json["plan"] = bit_plan_json(plan);
      outcome.text = bit_plan_text(plan);
      tell(session, weigh(flags_, reader, scheme_of(plan.plan)));
      if (flags_.plan_only) return outcome;
      choose(options, plan.plan);
    }
    result_ = quant::quantize_model(reader, options, data, folder.path());
    if (!session.leads()) return {};
    outcome.json.update(result_->to_json());
    outcome.text +=
        size_table(result_->before, result_->after) + quant_table(*result_);
    return outcome;
  }

  static sweep::Workload workload_of(
      const Session& session,
      const model::ModelReader& reader,
      const std::vector<model::Sequence>& data,
      const quant::QuantOptions& options) {
    sweep::Workload workload;
    workload.add(data);
    workload.divide(session.team());
    workload.takes_experts_apart = true;
    workload.headless = true;
    const auto apart = quant::quant_memory(reader, options, true);
    const auto whole = quant::quant_memory(reader, options, false);
    workload.extra_bytes = apart.bytes;
    workload.extra_whole_bytes = whole.bytes - apart.bytes;
    workload.extra_vram_bytes = whole.device_bytes;
    workload.extra_bytes += session.team().partial_sums() *
                            quant::most_moment_bytes(reader, options);
    return workload;
  }

  // What --moments says, or the most that finds room: each half as much passes
  // a layer twice as often.
  void size_moments(
      const Session& session,
      const model::ModelReader& reader,
      const std::vector<model::Sequence>& data,
      quant::QuantOptions& options) const {
    if (!flags_.moments.empty()) {
      options.moment_bytes = parse_size(flags_.moments, "--moments");
      return;
    }
    constexpr std::int64_t kLeast = std::int64_t{32} << 20;
    while (options.moment_bytes > kLeast &&
           !session.fits(reader, workload_of(session, reader, data, options))) {
      options.moment_bytes /= 2;
    }
    options.moment_bytes = session.as_rank_0(options.moment_bytes);
  }

  Outcome with_data(
      Session& session,
      std::unique_ptr<model::ModelReader> reader,
      quant::QuantOptions options,
      const io::AtomicDirectory& folder) {
    const auto data =
        session
            .calibration(
                *reader,
                {flags_.data, flags_.seq_len, flags_.tokens, flags_.data_flags})
            .sequences;
    size_moments(session, *reader, data, options);
    const sweep::Workload workload =
        workload_of(session, *reader, data, options);
    const OpenModel opened = session.open(std::move(reader), workload);
    const std::int64_t micro_batch =
        session.as_rank_0(quant::resumed_micro_batch(folder.path())
                              .value_or(opened.plan.micro_batch_tokens));
    options.identity["data"] = hash_of(data);
    options.identity["micro_batch_tokens"] = micro_batch;
    const ranks::Team& team = session.team();
    if (team.shards > 1) options.identity["shards"] = team.shards;
    auto own = sweep::own_micro_batches(
        data, micro_batch, opened.model->config().vocab_size, team);
    quant::Calibrated calibrated{
        *opened.model,
        std::move(own.batches),
        opened.plan.sweep_options(nullptr).activations,
        {team, std::move(own.shard_ends)}};
    return carry_out(
        session, opened.model->reader(), options, &calibrated, folder);
  }

  const CLI::App* parser_ = nullptr;
  std::string model_, out_, mtp_;
  QuantFlags flags_;
  bool resume_ = false, restart_ = false;
  std::optional<TargetWeight> weight_;
  std::optional<quant::QuantResult> result_;  // none of a plan alone
};

}  // namespace

std::unique_ptr<Command> make_quant() { return std::make_unique<Quant>(); }

}  // namespace fettle::cli
