// SPDX-License-Identifier: Apache-2.0
#include "cli/task_flags.h"

#include <fmt/format.h>

#include "cli/inputs.h"
#include "cli/targets.h"
#include "cli/unread.h"
#include "core/error.h"

namespace fettle::cli {

void add_task_flags(CLI::App& app, TaskFlags& flags) {
  app.add_option(
      "--choices",
      flags.choices,
      "Multiple-choice questions, by log-likelihood: rows of context, choices "
      "and answer, or of ARC, HellaSwag, MMLU, PIQA, WinoGrande and others");
  app.add_option(
      "--generate",
      flags.questions,
      "Questions to be answered in writing: rows of prompt and completion, or "
      "of question and answer");
  app.add_option(
      "--pattern",
      flags.pattern,
      "Where the answer is in what was written, and in the row's own: a "
      "regular "
      "expression, whose first group counts; without it, all of it");
  app.add_option("--match", flags.match, "Which match of --pattern counts")
      ->check(CLI::IsMember({"first", "last"}))
      ->capture_default_str();
  app.add_option(
         "--max-new-tokens",
         flags.max_new_tokens,
         "Tokens of an answer at most")
      ->check(CLI::PositiveNumber)
      ->capture_default_str();
  app.add_flag(
      "--chat",
      flags.chat,
      "Each is a question to the assistant, by the model's chat template");
  app.add_option(
         "--stop",
         flags.stops,
         "A text that ends an answer and is left out; may be given several "
         "times")
      ->allow_extra_args(false);
  app.add_option(
         "--parallel", flags.parallel, "Answers that are written at a time")
      ->check(CLI::Range(1, 4096))
      ->capture_default_str();
  app.add_option("--limit", flags.limit, "Rows of each file; 0: all")
      ->check(CLI::NonNegativeNumber)
      ->capture_default_str();
  app.add_option(
         "--shots",
         flags.shots,
         "Rows of --shots-from asked, with their answers, before each question")
      ->check(CLI::NonNegativeNumber)
      ->capture_default_str();
  app.add_option(
      "--shots-from", flags.shots_from, "File whose first rows are the shots");
  app.add_option(
      "--rows",
      flags.rows,
      "Write each question's result to this file, a JSON object a line");
}

void check_task_flags(const CLI::App& app, const TaskFlags& flags) {
  refuse_unread(
      app,
      {{"--shots --rows --limit", flags.any(), "--choices or --generate"},
       {"--pattern --max-new-tokens --stop --parallel --chat",
        !flags.questions.empty(),
        "--generate"},
       {"--match", !flags.pattern.empty(), "--pattern"},
       {"--shots-from", flags.shots > 0, "--shots above 0"}});
  if (flags.shots > 0 && flags.shots_from.empty()) {
    throw UsageError("cli", "--shots", "needs --shots-from FILE beside it");
  }
  if (!flags.rows.empty() && !flags.choices.empty() &&
      !flags.questions.empty()) {
    throw UsageError(
        "cli",
        "--rows",
        "is one file: give --choices and --generate in runs of their own");
  }
  check_data("--choices", flags.choices);
  check_data("--generate", flags.questions);
  check_file("--shots-from", flags.shots_from);
  if (!flags.rows.empty()) check_new_file({"--rows", flags.rows});
}

void require_shots(const TaskFlags& flags, std::size_t held) {
  if (static_cast<std::int64_t>(held) >= flags.shots) return;
  throw UserError(
      "eval",
      flags.shots_from,
      fmt::format("holds {} rows, and --shots asks for {}", held, flags.shots));
}

RowFile::RowFile(const std::string& path) : path_(path) {
  if (path_.empty()) return;
  file_.open(path_, std::ios::trunc);
  check();
}

void RowFile::add(const Json& row) {
  if (path_.empty()) return;
  file_ << row.dump() << "\n";
  check();
}

void RowFile::close() {
  if (path_.empty()) return;
  file_.close();
  check();
}

void RowFile::check() const {
  if (!file_) throw UserError("cli", path_, "cannot be written (--rows)");
}

std::string share_text(const sweep::Share& share) {
  if (!share.error) return fmt::format("{:.2f} %", 100 * share.value);
  return fmt::format(
      "{:.2f} % ± {:.2f}", 100 * share.value, 100 * *share.error);
}

void add_share(Json& json, const std::string& name, const sweep::Share& share) {
  json[name] = share.value;
  if (share.error) json[name + "_stderr"] = *share.error;
}

}  // namespace fettle::cli
