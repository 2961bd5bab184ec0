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
#include "cli/session.h"
#include "cli/shell_text.h"
#include "cli/targets.h"
#include "core/error.h"
#include "core/one_line.h"

namespace fettle::cli {
namespace {

enum ExitCode { kDone = 0, kFailed = 1, kUsage = 2, kInternal = 3 };

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
  Session session(options);
  command.check(nullptr);
  Outcome outcome = command.run(session);
  session.add_peaks(outcome.json);
  session.add_data(outcome.json);
  print(outcome, options.json);
  return kDone;
}

int report(ExitCode code, const char* message) {
  std::cerr << "fettle: " << message << "\n";
  return code;
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
  } catch (const UsageError& error) {
    return report(kUsage, error.what());
  } catch (const UserError& error) {
    return report(kFailed, error.what());
  }
}

}  // namespace fettle::cli
