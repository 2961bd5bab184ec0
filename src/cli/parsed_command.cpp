// SPDX-License-Identifier: Apache-2.0
#include "cli/parsed_command.h"

#include <fmt/format.h>

#include <algorithm>

#include "cli/argument_checks.h"
#include "cli/option_kinds.h"
#include "cli/session.h"
#include "cli/shell_text.h"
#include "cli/usage.h"
#include "core/error.h"

namespace fettle::cli {
namespace {

std::unique_ptr<Command> make_command(
    const std::string& name, CLI::App& parser) {
  for (const auto& entry : commands()) {
    if (name != entry.name) continue;
    auto command = entry.make();
    command->add_options(parser);
    check_numbers(parser);
    mark_paths(parser, name);
    return command;
  }
  throw InternalError("no command " + name);
}

}  // namespace

ParsedCommand::ParsedCommand(
    const std::string& name, std::vector<std::string> arguments)
    : app_("", name), name_(name), command_(make_command(name, app_)) {
  std::vector<std::string> words{name};
  words.insert(words.end(), arguments.begin(), arguments.end());
  text_ = command_line(words);
  for (const std::string& argument : arguments) require_utf8(argument);
  std::reverse(arguments.begin(), arguments.end());  // CLI11's order
  try {
    app_.parse(arguments);
  } catch (const CLI::ParseError& error) {
    const UsageText text = usage_text(app_, error);
    throw UserError(
        "recipe",
        fmt::format("stage '{}'", name),
        fmt::format("{}: {}", text.subject, text.message));
  }
}

void ParsedCommand::check(const Foreseen& foreseen) const {
  try {
    command_->check(&foreseen);
  } catch (const UserError& error) {
    throw UserError("recipe", fmt::format("stage '{}'", name_), error.what());
  }
}

Outcome ParsedCommand::run(Session& session) {
  command_->check(nullptr);
  session.set_command(text_);
  return command_->run(session);
}

bool ParsedCommand::knows(std::string_view option) const {
  return app_.get_option_no_throw(std::string(option)) != nullptr;
}

std::vector<std::string> ParsedCommand::values(std::string_view option) const {
  return app_.get_option(std::string(option))->as<std::vector<std::string>>();
}

std::vector<std::filesystem::path> ParsedCommand::inputs() const {
  std::vector<std::filesystem::path> result;
  for (const CLI::Option* option : app_.get_options()) {
    const std::string kind = path_kind(*option);
    if (kind == kData) {
      for (auto& file : data_files(option->results())) {
        result.push_back(std::move(file.path));
      }
    } else if (kind == kFolder || kind == kModel || kind == kFile) {
      for (const std::string& path : option->results()) {
        if (!path.empty()) result.emplace_back(path);
      }
    }
  }
  return result;
}

bool command_knows(const std::string& command, std::string_view option) {
  CLI::App parser;
  const auto made = make_command(command, parser);
  return parser.get_option_no_throw(std::string(option)) != nullptr;
}

}  // namespace fettle::cli
