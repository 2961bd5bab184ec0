// SPDX-License-Identifier: Apache-2.0
#include <fmt/format.h>
#include <malloc.h>

#include <algorithm>
#include <chrono>

#include "cli/chain.h"
#include "cli/chain_check.h"
#include "cli/command.h"
#include "cli/inputs.h"
#include "cli/parsed_command.h"
#include "cli/resume_flags.h"
#include "cli/run_record.h"
#include "cli/run_table.h"
#include "cli/session.h"
#include "cli/shell_text.h"
#include "core/error.h"
#include "core/memory.h"
#include "io/checkpoint.h"

namespace fettle::cli {
namespace {

std::string compute_type(const Session& session) {
  const std::string& named = session.options().compute_dtype;
  if (named != "auto") return named;
  return session.device().is_cpu() ? "float32" : "bfloat16";
}

void make_work_folder(const std::filesystem::path& folder) {
  std::error_code error;
  std::filesystem::create_directories(folder, error);
  if (!error) return;
  throw UserError("run", folder.string(), "cannot be made: " + error.message());
}

class Run : public Command {
 public:
  void add_options(CLI::App& app) override {
    parser_ = &app;
    app.add_option("RECIPE", recipe_file_, "Recipe in YAML")->required();
    add_resume_flags(app, resume_, restart_);
    app.add_flag(
        "--dry-run",
        dry_run_,
        "Check everything that can be checked, say what would be done, and "
        "write nothing");
  }

  void check(const Foreseen*) const override {
    check_file("RECIPE", recipe_file_);
  }

  Outcome run(Session& session) override {
    recipe_ = read_recipe(recipe_file_);
    const CLI::Option* seed = parser_->get_option_no_throw("--seed");
    if (seed != nullptr && seed->count() > 0) recipe_.seed = session.seed();
    check_work_folder(recipe_);
    const auto steps = chain_of(recipe_);
    if (!recipe_.eval.empty()) {
      loss_key_ = loss_key(recipe_, compute_type(session));
    }
    RunRecord record(recipe_.out);
    check_chain(recipe_, steps, record);
    if (dry_run_) {
      DryRun would = dry_run(steps, record, loss_key_);
      return {.json = {{"stages", would.stages}}, .text = would.text};
    }
    make_work_folder(recipe_.out);
    CommonOptions common = session.options();
    common.seed = recipe_.seed;
    Session stage_session(common);
    return perform_all(steps, stage_session, record);
  }

 private:
  Outcome perform_all(
      const std::vector<ChainStep>& steps,
      Session& session,
      RunRecord& record) {
    RunTable table;
    std::string evaluations;
    const auto stop_in = [&](const std::string& name) {
      return Outcome{
          .json = {{"stages", table.json()}},
          .text = fmt::format(
              "{}stopped in {}: go on with --resume\n", table.text(), name),
          .stopped = true};
    };
    const ChainStep original{
        .name = "00-original",
        .command = {},
        .arguments = {},
        .out = recipe_.model,
        .makes_model = true,
        .key = model_key(recipe_.model)};
    if (!measure(original, session, record)) return stop_in(original.name);
    add_row(original, false, record, table);
    for (const auto& step : steps) {
      const bool skipped = record.is_whole(step);
      if (!skipped && !perform(step, session, record)) {
        return stop_in(step.name);
      }
      if (step.makes_model && !measure(step, session, record)) {
        return stop_in(step.name);
      }
      add_row(step, skipped, record, table);
      evaluations += evaluation_text(step, record);
    }
    return {
        .json = {{"stages", table.json()}},
        .text = table.text() + evaluations + closing(steps)};
  }

  // Whether the step ran to its end.
  bool perform(const ChainStep& step, Session& session, RunRecord& record) {
    session.reporter().note(step.name);
    if (record.is_stale(step)) std::filesystem::remove_all(step.out);
    auto arguments = step.arguments;
    const bool saves = command_knows(step.command, "--restart");
    if (saves && resume_ && record.is_begun(step)) {
      arguments.emplace_back("--resume");
    } else if (saves && (restart_ || !record.is_begun(step))) {
      // What may lie there is of another step, or not wanted.
      arguments.emplace_back("--restart");
    }
    record.begin(step);
    malloc_trim(0);  // what the last stage freed is not this one's
    reset_peak_resident_memory();
    const auto begin = std::chrono::steady_clock::now();
    Outcome made = ParsedCommand(step.command, arguments).run(session);
    if (made.stopped) return false;
    const std::chrono::duration<double> seconds =
        std::chrono::steady_clock::now() - begin;
    made.json["seconds"] = seconds.count();
    session.add_peaks(made.json);
    session.add_data(made.json);
    if (step.out.empty()) made.json["text"] = made.text;
    record.finish(step, made.json);
    return true;
  }

  // Size and mean held-out loss of a step's model, where they aren't known yet:
  // a run may have been killed behind the step itself, or the held-out data may
  // have changed. False when it was stopped.
  bool measure(const ChainStep& step, Session& session, RunRecord& record) {
    Json result = record.result(step);
    if (!result.contains("bytes")) {
      result["bytes"] = io::Checkpoint::open(step.out).total_bytes();
      record.finish(step, result);
    }
    if (loss_key_.empty() || !record.loss(step, loss_key_).is_null()) {
      return true;
    }
    std::vector<std::string> arguments{step.out.string(), "--data"};
    for (const auto* more : {&recipe_.eval, &recipe_.data_flags}) {
      arguments.insert(arguments.end(), more->begin(), more->end());
    }
    if (recipe_.seq_len > 0) {
      arguments.push_back(fmt::format("--seq-len={}", recipe_.seq_len));
    }
    const Outcome made = ParsedCommand("eval", arguments).run(session);
    if (made.stopped) return false;
    record.set_loss(step, loss_key_, made.json);
    return true;
  }

  void add_row(
      const ChainStep& step,
      bool skipped,
      const RunRecord& record,
      RunTable& table) const {
    table.add(
        step.name,
        record.result(step),
        loss_key_.empty() ? Json(nullptr) : record.loss(step, loss_key_),
        skipped);
  }

  // An eval stage's own table; empty for any other stage.
  static std::string evaluation_text(
      const ChainStep& step, const RunRecord& record) {
    if (!step.out.empty()) return {};
    const Json result = record.result(step);
    const auto text = result.find("text");
    if (text == result.end() || !text->is_string()) return {};
    return fmt::format("\n{}\n{}", step.name, text->get<std::string>());
  }

  std::string closing(const std::vector<ChainStep>& steps) const {
    std::string text;
    std::string last;
    for (const auto& step : steps) {
      if (step.out.empty()) continue;
      const auto report = step.out / "report.html";
      if (std::filesystem::exists(report)) {
        text += closing_text({.report = report});
      }
      if (step.makes_model) last = step.out.string();
    }
    if (last.empty()) return text;
    return text +
           closing_text(
               {.next = {"fettle", "generate", last, "--prompt", "TEXT"}});
  }

  std::string recipe_file_;
  bool resume_ = false, restart_ = false, dry_run_ = false;
  Recipe recipe_;
  std::string loss_key_;  // empty: no held-out data
  const CLI::App* parser_ = nullptr;
};

}  // namespace

std::unique_ptr<Command> make_run() { return std::make_unique<Run>(); }

}  // namespace fettle::cli
