// SPDX-License-Identifier: Apache-2.0
#include "analyze/analyze.h"

#include <fmt/format.h>

#include <chrono>

#include "analyze/report.h"
#include "analyze/score_method.h"
#include "cli/command.h"
#include "cli/session.h"
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
    app.add_option("MODEL", model_, "Model folder")->required();
    app.add_option(
           "--data", data_, "JSONL files, with weights as a.jsonl:2,b.jsonl")
        ->required();
    app.add_option("--out", out_, "Folder for the scores")->required();
    app.add_option("--scores", options_.scores, scores_help())
        ->delimiter(',')
        ->capture_default_str();
    app.add_option("--tokens", tokens_, "Calibration tokens; 0: all")
        ->check(CLI::NonNegativeNumber)
        ->capture_default_str();
    app.add_option("--seq-len", seq_len_, "Tokens of a window")
        ->capture_default_str();
    app.add_option(
           "--batch-sequences",
           options_.batch_sequences,
           "Sequences whose gradient counts as one, for grad_abs")
        ->check(CLI::PositiveNumber)
        ->capture_default_str();
  }

  Outcome run(Session& session) override {
    auto reader = std::make_unique<model::ModelReader>(model_);
    const bool backward = analyze::needs_backward(options_.scores);
    io::AtomicDirectory folder(out_);
    const auto tokenizer = text::Tokenizer::load(model_);
    const auto data = sweep::load_calibration(
        data_files(data_),
        {tokenizer, session.sample_options(*reader), seq_len_},
        tokens_,
        session.seed());
    sweep::Workload workload;
    workload.tokens = sweep::count_tokens(data);
    workload.longest_sequence = sweep::longest(data);
    workload.backward = backward;
    workload.extra_bytes =
        analyze::analyze_bytes(reader->config(), options_.scores);
    OpenModel opened = session.open(std::move(reader), workload);
    options_.micro_batch_tokens = opened.plan.micro_batch_tokens;
    options_.seed = session.seed();
    options_.sweep = opened.plan.sweep_options(&session.reporter());
    options_.run = {
        {"data", data_}, {"seq_len", seq_len_}, {"seed", session.seed()}};
    const auto begin = std::chrono::steady_clock::now();
    const auto scores = analyze::analyze(*opened.model, data, options_);
    const std::chrono::duration<double> seconds =
        std::chrono::steady_clock::now() - begin;
    scores.save(folder.path());
    analyze::write_report(
        folder.path() / "report.html",
        scores,
        {std::filesystem::path(model_).filename().string()});
    folder.commit();
    return outcome(scores, seconds.count());
  }

 private:
  Outcome outcome(const artifact::ScoreFile& scores, double seconds) const {
    const double rate = static_cast<double>(scores.tokens) / seconds;
    Outcome result;
    result.json = {
        {"out", out_},
        {"tokens", scores.tokens},
        {"scores", options_.scores},
        {"tokens_per_second", rate},
        {"seconds", seconds}};
    result.text = fmt::format(
        "{} calibration tokens in {:.1f} s ({:.0f} tokens/s); scores and "
        "report.html in {}\n",
        scores.tokens,
        seconds,
        rate,
        out_);
    return result;
  }

  std::string model_, out_;
  std::vector<std::string> data_;
  std::int64_t tokens_ = 262144;
  std::int64_t seq_len_ = 512;
  analyze::AnalyzeOptions options_;
};

}  // namespace

std::unique_ptr<Command> make_analyze() { return std::make_unique<Analyze>(); }

}  // namespace fettle::cli
