// SPDX-License-Identifier: Apache-2.0
#include "cli/command_line.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>

#include "cli/help.h"
#include "cli/option_kinds.h"
#include "cli/spelling.h"
#include "cli/usage.h"
#include "cli/version_text.h"
#include "core/error.h"

namespace fettle::cli {
namespace {

constexpr std::array<CommandEntry, 15> kCommands{{
    {"inspect", "What a model is made of; checks every header", make_inspect},
    {"fit",
     "What of a model fits a card, and what that takes",
     make_fit,
     false,
     true},
    {"eval", "Held-out loss, and distance to another model", make_eval},
    {"generate", "Continue a prompt", make_generate},
    {"chat", "Talk with the model in the terminal", make_chat},
    {"serve", "Serve the model to other programs, by OpenAI's API", make_serve},
    {"analyze", "Score every expert and every neuron", make_analyze},
    {"trim", "Cut what matters least", make_trim},
    {"quant", "Store weights in few bits", make_quant},
    {"tune", "Train what is left, by one of several methods", make_tune},
    {"merge", "Add a tuned adapter to its base", make_merge},
    {"export", "Write a folder that other programs open", make_export},
    {"run", "Run a recipe of stages", make_run},
    {"help", "What a command does, and its options", make_help, true},
    {"completion", "A script for a shell's completion", make_completion, true},
}};

}  // namespace

std::span<const CommandEntry> commands() { return kCommands; }

CommandLine::CommandLine()
    : app_(
          "Makes a Mixture-of-Experts language model fit the card you own, and "
          "gives it its quality back.",
          "fettle") {
  app_.set_version_flag("--version", [] { return version_text(); });
  app_.require_subcommand(1);
  for (const auto& entry : kCommands) {
    CLI::App* parser = app_.add_subcommand(entry.name, entry.help);
    parsers_.emplace_back(parser, entry.make());
    parsers_.back().second->add_options(*parser);
    if (!entry.about_program) {
      add_common_options(
          *parser,
          options_,
          {.budgets = !entry.own_budgets,
           .shards = parsers_.back().second->divides()});
    }
    mark_paths(*parser, entry.name);
    set_help(*parser, entry.name);
  }
  set_program_help(app_);
}

CommandLine::Asked CommandLine::parse(int argc, char** argv) {
  if (argc > 1) first_word_ = argv[1];
  app_.parse(argc, argv);
  for (auto& [parser, command] : parsers_) {
    if (parser->parsed()) return {*parser, *command};
  }
  throw InternalError("a command line without a command was parsed");
}

const CLI::App& CommandLine::innermost() const {
  for (const auto& [parser, command] : parsers_) {
    if (parser->parsed()) return *parser;
  }
  return app_;
}

bool CommandLine::is_asked_for(const CLI::ParseError& error) const {
  return error.get_exit_code() == 0;
}

std::string CommandLine::help() const { return app_.help(); }

std::string CommandLine::text(const CLI::ParseError& error) const {
  if (error.get_name() == "CallForHelp") return app_.help();
  if (is_asked_for(error)) return std::string(error.what()) + "\n";
  if (first_word_.starts_with("-")) {
    return fmt::format(
        "fettle: [cli] {}: is no option of fettle itself; options stand behind "
        "a command; see fettle --help\n",
        first_word_);
  }
  const CLI::App& parser = innermost();
  if (&parser != &app_) {
    const UsageText text = usage_text(parser, error);
    return fmt::format(
        "fettle: [cli] {}: {}; see fettle {} --help\n",
        text.subject,
        text.message,
        parser.get_name());
  }
  std::vector<std::string> names;
  for (const auto& entry : kCommands) names.emplace_back(entry.name);
  const std::string near = nearest(first_word_, names);
  return fmt::format(
      "fettle: [cli] {}: is no command{}; see fettle --help\n",
      first_word_,
      near.empty() ? "" : fmt::format(": did you mean '{}'?", near));
}

}  // namespace fettle::cli
