// SPDX-License-Identifier: Apache-2.0
#include <fmt/format.h>
#include <malloc.h>

#include <algorithm>
#include <chrono>

#include "cli/chain.h"
#include "cli/command.h"
#include "cli/command_text.h"
#include "cli/inputs.h"
#include "cli/resume_flags.h"
#include "cli/run_record.h"
#include "cli/session.h"
#include "cli/table.h"
#include "core/bytes.h"
#include "core/error.h"
#include "core/memory.h"
#include "io/checkpoint.h"

namespace fettle::cli {
namespace {

// A command with its arguments parsed, as from the command line.
class ParsedCommand {
 public:
  ParsedCommand(const std::string& name, std::vector<std::string> arguments)
      : app_("", name) {
    for (const auto& entry : commands()) {
      if (name == entry.name) command_ = entry.make();
    }
    FETTLE_ASSERT(command_ != nullptr);
    command_->add_options(app_);
    std::vector<std::string> words{name};
    words.insert(words.end(), arguments.begin(), arguments.end());
    text_ = command_text(words);
    std::reverse(arguments.begin(), arguments.end());  // CLI11's order
    try {
      app_.parse(arguments);
    } catch (const CLI::ParseError& error) {
      throw UserError("recipe", "stage '" + name + "'", error.what());
    }
  }
  Outcome run(Session& session) {
    command_->check(nullptr);
    session.set_command(text_);
    return command_->run(session);
  }

 private:
  CLI::App app_;
  std::string text_;
  std::unique_ptr<Command> command_;
};

class Run : public Command {
 public:
  void add_options(CLI::App& app) override {
    app.add_option("RECIPE", recipe_file_, "Recipe in YAML")->required();
    add_resume_flags(app, resume_, restart_);
    app.add_flag("--dry-run", dry_run_, "Say what would be done, do nothing");
  }

  void check(const Foreseen*) const override {
    check_file("RECIPE", recipe_file_);
  }

  Outcome run(Session& session) override {
    recipe_ = read_recipe(recipe_file_);
    const auto steps = chain_of(recipe_);
    // Every option is checked before the first stage begins.
    for (const auto& step : steps) ParsedCommand(step.command, step.arguments);
    std::filesystem::create_directories(recipe_.out);
    RunRecord record(recipe_.out);
    if (dry_run_) return plan_of(steps, record);

    CommonOptions common = session.options();
    common.seed = recipe_.seed;
    Session stage_session(common);
    Outcome outcome;
    outcome.json["stages"] = Json::array();
    Table table({"stage", "size", "mean nll", "seconds", "peak RAM", ""});
    measure_original(steps.front(), stage_session, record, table, outcome.json);
    for (const auto& step : steps) {
      const bool skipped = record.is_whole(step);
      if (!skipped && !perform(step, stage_session, record)) {
        outcome.stopped = true;
        outcome.text = fmt::format(
            "{}stopped in {}: go on with --resume\n", table.text(), step.name);
        return outcome;
      }
      add_row(step, skipped, record, table, outcome.json);
    }
    outcome.text = table.text();
    return outcome;
  }

 private:
  // Whether the step ran to its end.
  bool perform(const ChainStep& step, Session& session, RunRecord& record) {
    session.reporter().note(step.name);
    if (record.is_stale(step)) std::filesystem::remove_all(step.out);
    auto arguments = step.arguments;
    const bool saves = step.command == "tune" || step.command == "analyze" ||
                       step.command == "quant";
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
    if (step.makes_model) add_loss(step.out.string(), session, made.json);
    record.finish(step, made.json);
    return true;
  }

  // Mean held-out loss and size of a model, where there is data for it.
  void add_loss(const std::string& model, Session& session, Json& json) {
    json["bytes"] = io::Checkpoint::open(model).total_bytes();
    if (recipe_.eval.empty()) return;
    std::vector<std::string> arguments{model, "--data"};
    for (const auto& file : recipe_.eval) arguments.push_back(file);
    arguments.push_back(fmt::format("--seq-len={}", recipe_.seq_len));
    json["eval"] = ParsedCommand("eval", arguments).run(session).json;
  }

  void measure_original(
      const ChainStep& first,
      Session& session,
      RunRecord& record,
      Table& table,
      Json& json) {
    ChainStep original;
    original.name = "00-original";
    original.key = first.key;
    Json result = record.result(original);
    if (result.empty()) {
      add_loss(recipe_.model, session, result);
      record.finish(original, result);
    }
    add_row(original, false, record, table, json);
  }

  static void add_row(
      const ChainStep& step,
      bool skipped,
      const RunRecord& record,
      Table& table,
      Json& json) {
    const Json result = record.result(step);
    const auto cell = [&](const char* key, auto format) {
      return result.contains(key) ? format(result[key]) : std::string();
    };
    const auto bytes = [](const Json& value) {
      return format_bytes(value.get<std::int64_t>());
    };
    table.add(
        {step.name,
         cell("bytes", bytes),
         cell(
             "eval",
             [](const Json& eval) {
               return fmt::format("{:.4f}", eval["mean_nll"].get<double>());
             }),
         cell(
             "seconds",
             [](const Json& s) {
               return fmt::format("{:.1f}", s.get<double>());
             }),
         cell("peak_ram_bytes", bytes),
         skipped ? "skipped" : ""});
    Json row = result;
    row["stage"] = step.name;
    row["skipped"] = skipped;
    json["stages"].push_back(std::move(row));
  }

  static Outcome plan_of(
      const std::vector<ChainStep>& steps, const RunRecord& record) {
    Outcome outcome;
    outcome.json["stages"] = Json::array();
    Table table({"stage", "would", "command"});
    for (const auto& step : steps) {
      const char* would = record.is_whole(step)   ? "be skipped"
                          : record.is_begun(step) ? "go on"
                                                  : "run";
      table.add(
          {step.name,
           would,
           fmt::format(
               "fettle {} {}", step.command, fmt::join(step.arguments, " "))});
      outcome.json["stages"].push_back(
          {{"stage", step.name}, {"would", would}, {"out", step.out.string()}});
    }
    outcome.text = table.text();
    return outcome;
  }

  std::string recipe_file_;
  bool resume_ = false, restart_ = false, dry_run_ = false;
  Recipe recipe_;
};

}  // namespace

std::unique_ptr<Command> make_run() { return std::make_unique<Run>(); }

}  // namespace fettle::cli
