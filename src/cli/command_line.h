// SPDX-License-Identifier: Apache-2.0
// The parser of the program's command line: all commands with their options,
// help and completion, and what is said of a line that can't be parsed.
#pragma once

#include <CLI/CLI.hpp>
#include <memory>
#include <utility>
#include <vector>

#include "cli/command.h"
#include "cli/session.h"

namespace fettle::cli {

class CommandLine {
 public:
  CommandLine();

  struct Asked {
    const CLI::App& parser;
    Command& command;
  };
  // Throws CLI::ParseError, also for --help and --version.
  Asked parse(int argc, char** argv);
  CommonOptions& options() { return options_; }

  // What to print of that error: help and version, which were asked for, or one
  // line on what is wrong.
  bool is_asked_for(const CLI::ParseError& error) const;
  std::string text(const CLI::ParseError& error) const;
  // The help of the whole program.
  std::string help() const;

 private:
  // The app of the command in use, or the program's.
  const CLI::App& innermost() const;

  CLI::App app_;
  CommonOptions options_;
  std::vector<std::pair<CLI::App*, std::unique_ptr<Command>>> parsers_;
  std::string first_word_;
};

}  // namespace fettle::cli
