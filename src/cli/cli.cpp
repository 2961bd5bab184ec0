// SPDX-License-Identifier: Apache-2.0
#include "cli/cli.h"

#include <c10/util/Exception.h>
#include <fmt/format.h>

#include <CLI/CLI.hpp>
#include <algorithm>
#include <cstdio>
#include <fstream>
#include <iostream>
#include <new>

#include "cli/command_line.h"
#include "cli/rank_process.h"
#include "cli/session.h"
#include "cli/shell_text.h"
#include "cli/targets.h"
#include "core/error.h"
#include "core/one_line.h"

namespace fettle::cli {
namespace {

enum ExitCode { kDone = 0, kUsage = 2 };

void check_json_target(const CLI::App& parser, const std::string& target) {
  const CLI::Option* option = parser.get_option_no_throw("--json");
  if (target == "-" || option == nullptr || option->count() == 0) return;
  check_new_file({"--json", target});
}

void print(const Outcome& outcome, const std::string& json_target) {
  if (json_target == "-") {
    std::cout << outcome.json.dump(2) << "\n";
    return;
  }
  std::cout << outcome.text << std::flush;
  if (json_target.empty()) return;
  std::ofstream file(json_target, std::ios::trunc);
  file << outcome.json.dump(2) << "\n";
  file.flush();
  if (!file) throw UserError("cli", json_target, "cannot be written");
}

int run_command(
    const CLI::App& parser, Command& command, const CommonOptions& options) {
  check_json_target(parser, options.json);
  if (process_place() && !command.divides()) {
    throw UsageError(
        "ranks",
        parser.get_name(),
        "is a command for one process; start it without torchrun, or unset "
        "WORLD_SIZE");
  }
  Session session(options);
  try {
    command.check(nullptr);
    session.wait_for_all();  // before one of them makes what others look for
    Outcome outcome = command.run(session);
    session.add_peaks(outcome.json);
    session.add_data(outcome.json);
    if (session.leads()) print(outcome, options.json);
    session.leave();
  } catch (const std::exception& error) {
    session.fail(error.what());
    throw;
  }
  return kDone;
}

// What was asked for goes to stdout, what is wrong to stderr.
int usage_error(const CommandLine& line, const CLI::ParseError& error) {
  std::string text = line.text(error);
  if (line.is_asked_for(error)) {
    std::cout << text;
    return kDone;
  }
  text.pop_back();  // the end of its line
  std::cerr << one_line(text) << "\n";
  return kUsage;
}

}  // namespace

int run(int argc, char** argv) {
  CommandLine line;
  if (argc < 2) {  // no error to a person, who reads on, but one to a script
    std::cout << line.help();
    return kUsage;
  }
  line.options().command = command_line(
      std::vector<std::string>(argv + std::min(argc, 1), argv + argc));
  try {
    const auto [parser, command] = line.parse(argc, argv);
    return run_command(parser, command, line.options());
  } catch (const CLI::ParseError& error) {
    return usage_error(line, error);
  }
}

}  // namespace fettle::cli
