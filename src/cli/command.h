// SPDX-License-Identifier: Apache-2.0
// What a command is: options that it adds to its parser, a check of them that
// needs no work, and a run that gives text for people and JSON for programs.
// Commands hold no logic of their own.
#pragma once

#include <CLI/CLI.hpp>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "core/json.h"

namespace fettle::model {
struct ModelConfig;
}

namespace fettle::cli {

class Session;

struct Outcome {
  Json json = Json::object();
  std::string text;      // a table, or what else people read
  bool stopped = false;  // ended early on request, to be resumed
};

// Takes the place of a model and scores that earlier steps of a recipe have yet
// to make.
struct Foreseen {
  const model::ModelConfig& config;  // of the model that the recipe begins with
  std::vector<std::string> scores = {};  // names of those in --scores
  bool packed = false;                   // the model has packed weights
};

class Command {
 public:
  virtual ~Command() = default;
  virtual void add_options(CLI::App& app) = 0;
  // Refuses what can be refused before any work: values of options, files that
  // are missing, and targets that exist or can't be made. run() relies on it.
  // `foreseen` is null, or given where MODEL, --scores and --out are a recipe's
  // own, and are not looked at.
  virtual void check(const Foreseen* foreseen) const = 0;
  virtual Outcome run(Session& session) = 0;
  // Whether ranks can divide the command's work.
  virtual bool divides() const { return false; }
};

struct CommandEntry {
  const char* name;
  const char* help;
  std::unique_ptr<Command> (*make)();
  bool about_program = false;  // opens no model: without the common options
  // Its --ram and --vram are of a machine that may be another one.
  bool own_budgets = false;
};

// All commands, in the order of the chain.
std::span<const CommandEntry> commands();

std::unique_ptr<Command> make_inspect();
std::unique_ptr<Command> make_fit();
std::unique_ptr<Command> make_eval();
std::unique_ptr<Command> make_generate();
std::unique_ptr<Command> make_chat();
std::unique_ptr<Command> make_serve();
std::unique_ptr<Command> make_analyze();
std::unique_ptr<Command> make_trim();
std::unique_ptr<Command> make_quant();
std::unique_ptr<Command> make_tune();
std::unique_ptr<Command> make_merge();
std::unique_ptr<Command> make_export();
std::unique_ptr<Command> make_run();
std::unique_ptr<Command> make_help();
std::unique_ptr<Command> make_completion();

}  // namespace fettle::cli
