// SPDX-License-Identifier: Apache-2.0
#include "analyze/analyze.h"

#include <fmt/format.h>

#include <algorithm>
#include <chrono>
#include <optional>

#include "analyze/choices_by_file.h"
#include "analyze/cut_advice.h"
#include "analyze/merge_scores.h"
#include "analyze/report.h"
#include "analyze/score_method.h"
#include "artifact/run_state.h"
#include "cli/command.h"
#include "cli/inputs.h"
#include "cli/model_option.h"
#include "cli/resume_flags.h"
#include "cli/session.h"
#include "cli/shell_text.h"
#include "cli/targets.h"
#include "cli/unread.h"
#include "core/error.h"
#include "io/atomic_directory.h"

namespace fettle::cli {
namespace {

std::string scores_help() {
  std::string help = "Scores to compute, separated by commas:";
  for (const auto& method : analyze::score_methods()) {
    help += fmt::format("\n  {}: {}", method.name, method.help);
  }
  return help + "\n ";
}

class Analyze : public Command {
 public:
  void add_options(CLI::App& app) override {
    parser_ = &app;
    add_model_option(app, model_);
    app.add_option("--data", data_, kDataHelp);
    add_data_flags(app, data_flags_);
    app.add_option(
        "--merge", merged_, "Instead of a model: folders of scores to add up");
    app.add_option("--out", out_, "Folder for the scores")->required();
    app.add_option("--scores", options_.scores, scores_help())
        ->delimiter(',')
        ->capture_default_str();
    app.add_option("--tokens", tokens_, "Calibration tokens; 0: all")
        ->check(CLI::NonNegativeNumber)
        ->capture_default_str();
    app.add_option("--seq-len", seq_len_, kWindowHelp)
        ->check(CLI::PositiveNumber);
    app.add_option(
           "--batch-sequences",
           options_.batch_sequences,
           "Sequences whose gradient counts as one, for grad_abs")
        ->check(CLI::PositiveNumber)
        ->capture_default_str();
    app.add_option(
           "--chunk-tokens",
           options_.chunk_tokens,
           "Tokens swept at a time, saved after each for --resume; 0: what the "
           "budget allows")
        ->check(CLI::NonNegativeNumber)
        ->capture_default_str();
    app.add_flag(
        "--keep-moments",
        options_.keep_moments,
        "Keep what obs is made of (16 bytes a pair of an expert's neurons), so "
        "that it merges, and a run with it resumes by chunks");
    app.add_flag(
        "--prices",
        prices_,
        "Score by targets that the model draws itself, and also measure what "
        "errors in each matrix cost: row_prices.safetensors, which fettle fit "
        "reads");
    app.add_flag(
        "--by-file",
        by_file_,
        "Count too which experts each file's tokens choose: one forward pass "
        "more; the report compares the files");
    add_resume_flags(app, options_.resume, restart_);
  }

  void check(const Foreseen* foreseen) const override {
    const bool reads = analyze::reads_data(options_.scores);
    const bool data_missing = data_.empty() && reads;
    if (merged_.empty() && (model_.empty() || data_missing)) {
      throw UsageError(
          "analyze",
          model_.empty() ? "MODEL" : "--data",
          "is required, unless --merge names folders of scores");
    }
    if (!merged_.empty() && (!model_.empty() || !data_.empty())) {
      throw UsageError(
          "analyze",
          model_.empty() ? "--data" : model_,
          "has no place beside --merge, which needs folders of scores alone");
    }
    for (const std::string& name : options_.scores) analyze::find_score(name);
    refuse_unread(
        *parser_,
        {{"--scores --tokens --seq-len --batch-sequences --chunk-tokens "
          "--keep-moments --prices --resume",
          merged_.empty(),
          "a model; --merge adds up scores as they are"},
         {"--prices",
          analyze::needs_backward(options_.scores),
          "a score that needs a backward sweep, such as obs"},
         {"--batch-sequences",
          std::ranges::find(options_.scores, "grad_abs") !=
              options_.scores.end(),
          "--scores grad_abs"}});
    check_data("--data", data_);
    for (const std::string& folder : merged_) check_folder("--merge", folder);
    if (foreseen == nullptr) check_new_folder({"--out", out_});
  }

  bool divides() const override { return true; }

  Outcome run(Session& session) override {
    if (prices_) session.require_undivided("--prices");
    if (!merged_.empty()) {
      return session.work_alone() ? merge(session) : Outcome{};
    }
    auto reader = session.read(model_);
    sweep::Workload workload = workload_of(*reader, session.team());
    std::optional<io::AtomicDirectory> folder;
    if (session.leads()) {
      folder.emplace(
          out_, artifact::resumable_output(options_.resume, restart_));
      options_.state_folder = folder->path();
    }
    seq_len_ = window_tokens(reader->config(), seq_len_);
    const bool weights_alone = data_.empty();
    const auto data =
        weights_alone
            ? sweep::CalibrationData{.sequences = analyze::no_data()}
            : session.calibration(
                  *reader,
                  {data_, seq_len_, tokens_, data_flags_, workload.backward});
    workload.add(data.sequences, options_.chunk_tokens);
    workload.divide(session.team());
    OpenModel opened = session.open(std::move(reader), workload);
    set_options(session, opened);
    const auto begin = std::chrono::steady_clock::now();
    auto scores = analyzed(*opened.model, data.sequences);
    if (by_file_) count_by_file(data, *opened.model, scores);
    if (!folder) return {};
    if (weights_alone) analyze::without_tokens(scores);
    const std::chrono::duration<double> seconds =
        std::chrono::steady_clock::now() - begin;
    write(scores, *folder, session);
    return outcome(scores, seconds.count());
  }

 private:
  artifact::ScoreFile analyzed(
      model::CausalLm& model, const std::vector<model::Sequence>& data) const {
    if (!prices_) return analyze::analyze(model, data, options_);
    auto both = analyze::analyze_with_prices(model, data, options_);
    both.prices.save(options_.state_folder);
    return std::move(both.scores);
  }

  sweep::Workload workload_of(
      const model::ModelReader& reader, const ranks::Team& team) const {
    sweep::Workload workload;
    workload.backward = analyze::needs_backward(options_.scores);
    workload.takes_experts_apart = true;
    workload.extra_bytes =
        analyze::analyze_bytes(reader.config(), options_.scores) +
        team.partial_sums() *
            analyze::analyze_layer_bytes(reader.config(), options_.scores);
    if (options_.keep_moments) {
      workload.extra_bytes +=
          analyze::kept_moment_bytes(reader.config(), options_.scores);
    }
    if (prices_) {
      workload.extra_bytes += analyze::price_bytes(reader.config());
    }
    workload.extra_vram_bytes =
        analyze::analyze_layer_bytes(reader.config(), options_.scores);
    return workload;
  }

  // Counts each file's choices, in what the analysis read of that file.
  void count_by_file(
      const sweep::CalibrationData& data,
      model::CausalLm& model,
      artifact::ScoreFile& scores) const {
    Json counted = Json::array();
    const auto files = data_files(data_);
    std::size_t begin = 0;
    for (std::size_t f = 0; f < data.ends.size(); ++f) {
      const std::vector<model::Sequence> part(
          data.sequences.begin() + static_cast<std::ptrdiff_t>(begin),
          data.sequences.begin() + static_cast<std::ptrdiff_t>(data.ends[f]));
      begin = data.ends[f];
      counted.push_back(
          analyze::count_choices(model, files[f].path.string(), part, options_)
              .to_json());
    }
    scores.run["by_file"] = std::move(counted);
  }

  void set_options(Session& session, const OpenModel& opened) {
    options_.micro_batch_tokens = opened.plan.micro_batch_tokens;
    options_.seed = session.seed();
    options_.sweep = opened.plan.sweep_options(&session.reporter());
    Json files = Json::array();
    Json weights = Json::array();
    for (const auto& file : data_files(data_)) {
      files.push_back(file.path.string());
      weights.push_back(file.weight);
    }
    options_.run = {
        {"model", opened.model->reader().name()},
        {"data", files},
        {"data_weights", weights},
        {"tokens", tokens_},
        {"seq_len", seq_len_}};
    if (options_.chunk_tokens > 0) return;
    options_.chunks_by_budget = true;
    if (prices_) return;
    if (!options_.keep_moments && analyze::needs_one_chunk(options_.scores)) {
      return;
    }
    options_.chunk_tokens = session.as_rank_0(analyze::chunk_tokens_within(
        opened.plan, opened.model->reader().checkpoint().total_bytes()));
  }

  static void write(
      const artifact::ScoreFile& scores,
      io::AtomicDirectory& folder,
      const Session& session) {
    scores.save(folder.path());
    analyze::write_report(
        folder.path() / "report.html",
        scores,
        {.title = scores.run.value("model", std::string("model")),
         .making = session.making()});
    folder.leave_out(std::string(artifact::kStatePrefix));
    folder.commit();
  }

  Outcome merge(const Session& session) {
    session.require_ram(analyze::merge_bytes({merged_.begin(), merged_.end()}));
    io::AtomicDirectory folder(
        out_, artifact::resumable_output(options_.resume, restart_));
    const auto scores = analyze::merge_scores(
        merged_.size(), [&](std::size_t i) -> analyze::MergeInput {
          return {merged_[i], artifact::ScoreFile::load(merged_[i])};
        });
    write(scores, folder, session);
    Outcome result;
    result.json = {
        {"out", out_}, {"merged", merged_}, {"tokens", scores.tokens}};
    result.text = fmt::format(
        "{} runs of {} calibration tokens in all; scores in {}\n",
        scores.merged.size(),
        scores.tokens,
        out_);
    result.text += closing("MODEL", {});
    return result;
  }

  Outcome outcome(const artifact::ScoreFile& scores, double seconds) const {
    const double rate = static_cast<double>(scores.tokens) / seconds;
    Outcome result;
    result.json = {
        {"out", out_},
        {"tokens", scores.tokens},
        {"scores", options_.scores},
        {"seconds", seconds}};
    // A resumed run did a part of the tokens only.
    std::string speed;
    if (!options_.resume) {
      result.json["tokens_per_second"] = rate;
      speed = fmt::format(" ({:.0f} tokens/s)", rate);
    }
    result.text = fmt::format(
        "{} calibration tokens in {:.1f} s{}; scores in {}\n",
        scores.tokens,
        seconds,
        speed,
        out_);
    result.json["cuts"] = Json::array();
    for (const analyze::CutCurve& curve : analyze::cut_curves(scores)) {
      result.text += curve.text() + "\n";
      result.json["cuts"].push_back(
          {{"score", curve.score},
           {"knee", curve.knee()},
           {"half", curve.at(0.5)},
           {"quarter", curve.at(0.25)}});
    }
    result.text += closing(model_, data_);
    return result;
  }

  std::string closing(
      const std::string& model, const std::vector<std::string>& data) const {
    std::vector<std::string> next{
        "fettle", "trim", model, "--scores", out_, "--keep", "0.5"};
    if (!data.empty()) next.emplace_back("--data");
    next.insert(next.end(), data.begin(), data.end());
    next.insert(next.end(), {"--out", "trimmed"});
    return closing_text(
        {.report = std::filesystem::path(out_) / "report.html", .next = next});
  }

  const CLI::App* parser_ = nullptr;
  std::string model_, out_;
  DataFlags data_flags_;
  std::vector<std::string> data_, merged_;
  bool by_file_ = false, prices_ = false;
  std::int64_t tokens_ = 262144;
  std::int64_t seq_len_ = 0;
  bool restart_ = false;
  analyze::AnalyzeOptions options_;
};

}  // namespace

std::unique_ptr<Command> make_analyze() { return std::make_unique<Analyze>(); }

}  // namespace fettle::cli
