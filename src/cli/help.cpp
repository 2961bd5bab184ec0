// SPDX-License-Identifier: Apache-2.0
#include "cli/help.h"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <memory>
#include <sstream>

#include "cli/help_groups.h"
#include "cli/option_kinds.h"
#include "cli/shell_text.h"

namespace fettle::cli {
namespace {

// Where descriptions of options begin.
constexpr std::size_t kColumn = 26;

// The placeholder of an option's value.
std::string value_name(const CLI::Option& option) {
  const std::string kind = path_kind(option);
  if (is_folder(kind)) return "FOLDER";
  if (kind == kFile || kind == kNewFile || kind == kData) return "FILE";
  if (!choices_of(option).empty()) return "NAME";
  const std::string type = option.get_type_name();
  if (type.starts_with("INT") || type.starts_with("UINT")) return "N";
  if (type.starts_with("FLOAT")) return "X";
  return type == kSize ? type : "TEXT";
}

bool takes_value(const CLI::Option& option) {
  return option.get_expected_max() != 0;  // a flag has none
}

bool takes_several(const CLI::Option& option) {
  return option.get_items_expected_max() > 1;
}

// "[obs]" of a list is obs.
std::string default_of(const CLI::Option& option) {
  std::string text = option.get_default_str();
  if (text.starts_with("[") && text.ends_with("]")) {
    text = text.substr(1, text.size() - 2);
  }
  return text;
}

// Lines of a description; those that begin with spaces hang below.
std::string description_lines(const std::string& text) {
  std::istringstream stream(text);
  std::string out;
  for (std::string line; std::getline(stream, line);) {
    const auto start = line.find_first_not_of(' ');
    if (start == std::string::npos) continue;
    if (!out.empty()) out += "\n" + std::string(kColumn + start, ' ');
    out += wrapped(
        line.substr(start),
        kColumn + (start == 0 ? 0 : start + 2),
        kColumn + start);
  }
  return out;
}

// What it does, its values and its default.
std::string description_of(const CLI::Option& option) {
  std::string text = option.get_description();
  const auto choices = choices_of(option);
  std::vector<std::string> notes;
  if (!choices.empty()) {
    const bool is_short =
        fmt::format("{}", fmt::join(choices, "|")).size() < 60;
    notes.push_back(
        fmt::format("{}", fmt::join(choices, is_short ? "|" : ", ")));
  }
  if (option.get_required() && !option.get_positional()) {
    notes.emplace_back("required");
  }
  const std::string value = default_of(option);
  if (takes_value(option) && !value.empty()) {
    notes.push_back("default: " + value);
  }
  if (notes.empty()) return description_lines(text);
  const std::string note = fmt::format("[{}]", fmt::join(notes, "; "));
  const bool is_list = text.find('\n') != std::string::npos;
  return description_lines(
      is_list ? text + "\n" + note : fmt::format("{} {}", text, note));
}

std::string option_text(const CLI::Option& option) {
  std::string line = "  " + option_form(option);
  if (line.size() + 2 > kColumn) {
    line += "\n" + std::string(kColumn, ' ');
  } else {
    line += std::string(kColumn - line.size(), ' ');
  }
  return line + description_of(option) + "\n";
}

class HelpFormatter : public CLI::Formatter {
 public:
  explicit HelpFormatter(CommandHelp help) : help_(std::move(help)) {}

  std::string make_help(
      const CLI::App* app, std::string, CLI::AppFormatMode) const override {
    std::string text = wrapped(help_.about, 0, 0) + "\n\n";
    text += usage(*app);
    text += arguments(*app);
    for (const std::string& group : app->get_groups()) {
      if (!group.empty() && group != "Common options") {
        text += group_text(*app, group);
      }
    }
    text += group_text(*app, "Common options");
    for (const std::string& section : help_.sections) text += "\n" + section;
    text += "\nExamples:\n";
    for (const std::string& example : help_.examples) {
      text += "  " + wrapped(example, 6, 2) + "\n";
    }
    return text;
  }

 private:
  static std::string usage(const CLI::App& app) {
    std::vector<std::string> words{"Usage: fettle " + app.get_name()};
    for (const CLI::Option* option : app.get_options()) {
      if (!option->get_positional()) continue;
      const std::string form = option_form(*option);
      words.push_back(
          option->get_required() ? form : fmt::format("[{}]", form));
    }
    for (const CLI::Option* option : app.get_options()) {
      if (option->get_required() && !option->get_positional()) {
        words.push_back(option_form(*option));
      }
    }
    words.emplace_back("[options]");
    return wrapped(fmt::format("{}", fmt::join(words, " ")), 11, 0) + "\n";
  }

  static std::string arguments(const CLI::App& app) {
    std::string text;
    for (const CLI::Option* option : app.get_options()) {
      if (option->get_positional()) text += option_text(*option);
    }
    return text.empty() ? text : "\nArguments:\n" + text;
  }

  static std::string group_text(const CLI::App& app, const std::string& group) {
    std::string text;
    for (const CLI::Option* option : app.get_options()) {
      if (!option->get_positional() && option->get_group() == group) {
        text += option_text(*option);
      }
    }
    return text.empty() ? text : fmt::format("\n{}:\n{}", group, text);
  }

  CommandHelp help_;
};

class ProgramFormatter : public CLI::Formatter {
 public:
  std::string make_help(
      const CLI::App* app, std::string, CLI::AppFormatMode) const override {
    std::string text =
        wrapped(app->get_description(), 0, 0) +
        "\n\nUsage: fettle COMMAND [options]\n\nCommands, in the order in "
        "which a model passes them:\n";
    for (const CLI::App* command : app->get_subcommands({})) {
      text += fmt::format(
          "  {:<12}{}\n", command->get_name(), command->get_description());
    }
    return text +
           "\nExamples:\n"
           "  fettle inspect MODEL\n"
           "  fettle analyze MODEL --data calib.jsonl --out scores\n"
           "  fettle trim MODEL --scores scores --keep 0.5 --data calib.jsonl "
           "--out trimmed\n"
           "\n'fettle help COMMAND' tells a command's options, 'fettle "
           "--version' what this build is.\n";
  }
};

}  // namespace

std::string option_form(const CLI::Option& option) {
  std::string form;
  if (option.get_positional()) {
    form = option.get_name(true);
  } else {
    form = option.get_name(false, true);
    form = form.substr(0, form.find(','));
    if (form == "-h") form = "--help";
    if (takes_value(option)) form += " " + value_name(option);
  }
  return takes_value(option) && takes_several(option) ? form + "..." : form;
}

void set_help(CLI::App& parser, std::string_view command) {
  group_options(parser, command);
  parser.formatter(std::make_shared<HelpFormatter>(help_of(command)));
}

void set_program_help(CLI::App& app) {
  app.formatter(std::make_shared<ProgramFormatter>());
}

}  // namespace fettle::cli
