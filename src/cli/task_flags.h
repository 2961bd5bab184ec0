// SPDX-License-Identifier: Apache-2.0
// Options of eval that ask a model questions, and what they are about.
#pragma once

#include <CLI/CLI.hpp>
#include <cstdint>
#include <fstream>
#include <string>
#include <vector>

#include "core/json.h"
#include "sweep/choices.h"

namespace fettle::cli {

struct TaskFlags {
  std::vector<std::string> choices;
  std::vector<std::string> questions;  // to be answered in writing
  std::int64_t limit = 0;              // rows of each file; 0: all
  std::string pattern;                 // of the answer in what was written
  std::string match = "first";
  std::vector<std::string> stops;
  std::int64_t max_new_tokens = 256;
  std::int64_t parallel = 8;  // sequences that are decoded at a time
  bool chat = false;          // questions to the assistant
  std::int64_t shots = 0;     // rows asked before each question
  std::string shots_from;
  std::string rows;  // file for the result of each row

  bool any() const { return !choices.empty() || !questions.empty(); }
};

void add_task_flags(CLI::App& app, TaskFlags& flags);

// Throws UserError on files that are missing, UsageError on options that say
// nothing without each other.
void check_task_flags(const CLI::App& app, const TaskFlags& flags);

// The first rows of a file, as many as --limit lets in.
template <typename Row>
void limit_rows(const TaskFlags& flags, std::vector<Row>& rows) {
  const auto most = static_cast<std::size_t>(flags.limit);
  if (flags.limit > 0 && rows.size() > most) rows.resize(most);
}

// Throws UserError unless --shots-from holds as many rows as --shots asks for.
void require_shots(const TaskFlags& flags, std::size_t held);

// The first rows of --shots-from, as many as --shots asks for.
template <typename Row>
void take_shots(const TaskFlags& flags, std::vector<Row>& rows) {
  require_shots(flags, rows.size());
  rows.resize(static_cast<std::size_t>(flags.shots));
}

// A file of a JSON object a line; without a name nothing is written.
class RowFile {
 public:
  // Throws UserError when it can't be written, as add() and close() do.
  explicit RowFile(const std::string& path);
  void add(const Json& row);
  void close();

 private:
  void check() const;

  std::string path_;
  std::ofstream file_;
};

// "62.50 % ± 2.10": a share with its standard error.
std::string share_text(const sweep::Share& share);
// Adds `name` and `name`_stderr.
void add_share(Json& json, const std::string& name, const sweep::Share& share);

}  // namespace fettle::cli
