// SPDX-License-Identifier: Apache-2.0
#include "cli/cli.h"

#include <c10/util/Exception.h>
#include <fmt/format.h>

#include <CLI/CLI.hpp>
#include <algorithm>
#include <array>
#include <cstdio>
#include <fstream>
#include <iostream>
#include <new>

#include "artifact/manifest.h"
#include "cli/command.h"
#include "cli/command_text.h"
#include "cli/session.h"
#include "cli/spelling.h"
#include "cli/targets.h"
#include "core/error.h"

namespace fettle::cli {
namespace {

enum ExitCode { kDone = 0, kFailed = 1, kUsage = 2, kInternal = 3 };

constexpr std::array<CommandEntry, 10> kCommands{{
    {"inspect", "What a model is made of; checks every header", make_inspect},
    {"eval", "Held-out loss, and distance to a teacher", make_eval},
    {"generate", "Continue a prompt", make_generate},
    {"analyze", "Score every expert and intermediate dimension", make_analyze},
    {"trim", "Cut what matters least", make_trim},
    {"quant", "Store weights in few bits", make_quant},
    {"tune", "Fine-tune the neurons that matter", make_tune},
    {"merge", "Add a tuned adapter to its base", make_merge},
    {"export", "Write a folder that stock loaders open", make_export},
    {"run", "Run a recipe of stages", make_run},
}};

void check_json_target(const CLI::App& parser, const std::string& target) {
  if (target == "-" || parser.count("--json") == 0) return;
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

// A misspelt command gets the nearest name; everything else is CLI11's to say.
int usage_error(
    const CLI::App& app, const CLI::ParseError& error, int argc, char** argv) {
  if (error.get_exit_code() == 0) {  // --help, --version
    app.exit(error);
    return kDone;
  }
  if (argc > 1 && argv[1][0] != '-') {
    std::vector<std::string> names;
    for (const auto& entry : kCommands) names.emplace_back(entry.name);
    if (std::find(names.begin(), names.end(), argv[1]) == names.end()) {
      const std::string near = nearest(argv[1], names);
      std::cerr << fmt::format(
          "fettle: there is no command '{}'{}; see fettle --help\n",
          argv[1],
          near.empty() ? "" : fmt::format(": did you mean '{}'?", near));
      return kUsage;
    }
  }
  app.exit(error, std::cerr, std::cerr);
  return kUsage;
}

}  // namespace

std::span<const CommandEntry> commands() { return kCommands; }

int run(int argc, char** argv) {
  CLI::App app(
      "Slim, tune and re-export Mixture-of-Experts models on one small card.",
      "fettle");
  app.set_version_flag("--version", std::string(artifact::version()));
  app.require_subcommand(1);
  CommonOptions options;
  std::vector<std::pair<CLI::App*, std::unique_ptr<Command>>> parsers;
  for (const auto& entry : kCommands) {
    CLI::App* parser = app.add_subcommand(entry.name, entry.help);
    parsers.emplace_back(parser, entry.make());
    parsers.back().second->add_options(*parser);
    add_common_options(*parser, options);
  }
  options.command = command_text(
      std::vector<std::string>(argv + std::min(argc, 1), argv + argc));
  try {
    app.parse(argc, argv);
    for (auto& [parser, command] : parsers) {
      if (parser->parsed()) return run_command(*parser, *command, options);
    }
    return kUsage;
  } catch (const CLI::ParseError& error) {
    return usage_error(app, error, argc, argv);
  } catch (const UsageError& error) {
    return report(kUsage, error.what());
  } catch (const UserError& error) {
    return report(kFailed, error.what());
  }
}

}  // namespace fettle::cli
