// SPDX-License-Identifier: Apache-2.0
// What --help prints: what a command does, its options in groups with values
// and defaults, what data and methods there are, and examples, in kTextWidth
// columns.
#pragma once

#include <CLI/CLI.hpp>
#include <string>
#include <string_view>
#include <vector>

namespace fettle::cli {

struct CommandHelp {
  std::string about;                  // one sentence or two
  std::vector<std::string> sections;  // "Data:" and the text below it
  // Commands with what each does, a line each.
  std::vector<std::string> examples;
};

// The help of a command, which must exist.
CommandHelp help_of(std::string_view command);

// Sorts a command's options into groups of one purpose, and has --help print
// help_of(command) and them. To be called when all options are there.
void set_help(CLI::App& parser, std::string_view command);

// Has --help print the program's own help, once all commands are there.
void set_program_help(CLI::App& app);

// How an option is written: "--scope NAME", "--data FILE...", "MODEL".
std::string option_form(const CLI::Option& option);

}  // namespace fettle::cli
