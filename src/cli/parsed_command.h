// SPDX-License-Identifier: Apache-2.0
// A command with its arguments parsed, as from the command line, for a recipe.
#pragma once

#include <CLI/CLI.hpp>
#include <filesystem>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "cli/command.h"

namespace fettle::cli {

class ParsedCommand {
 public:
  // Throws UserError naming the stage when the arguments can't be parsed.
  ParsedCommand(const std::string& name, std::vector<std::string> arguments);

  // Refuses what can be refused before any work; errors name the stage.
  void check(const Foreseen& foreseen) const;
  Outcome run(Session& session);

  // Whether the command has such an option.
  bool knows(std::string_view option) const;
  // An option's values, as given or else by default.
  std::vector<std::string> values(std::string_view option) const;
  // Every file and folder that the options name to be read.
  std::vector<std::filesystem::path> inputs() const;

 private:
  CLI::App app_;
  std::string name_;
  std::string text_;  // as typed
  std::unique_ptr<Command> command_;
};

// Whether `command` has such an option.
bool command_knows(const std::string& command, std::string_view option);

}  // namespace fettle::cli
