// SPDX-License-Identifier: Apache-2.0
#include "cli/completion.h"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>

#include "cli/option_kinds.h"

namespace fettle::cli {
namespace {

enum class Values { kNone, kAny, kChoices, kFolders, kFiles };

Values values_of(const CLI::Option& option) {
  if (option.get_expected_max() == 0) return Values::kNone;  // a flag
  if (!choices_of(option).empty()) return Values::kChoices;
  const std::string kind = path_kind(option);
  if (is_folder(kind)) return Values::kFolders;
  return kind.empty() ? Values::kAny : Values::kFiles;
}

std::vector<std::string> long_names(const CLI::App& command) {
  std::vector<std::string> names;
  for (const CLI::Option* option : command.get_options()) {
    for (const std::string& name : option->get_lnames()) {
      names.push_back("--" + name);
    }
  }
  return names;
}

// The first line of a description, without what a script would read in it.
std::string plain(const std::string& text) {
  std::string out;
  for (const char c : text.substr(0, text.find('\n'))) {
    if (c == '\'' || c == '[' || c == ']' || c == ':' || c == '\\' ||
        c == '"' || c == '`' || c == '$') {
      out += c == ':' ? "," : "";
    } else {
      out += c;
    }
  }
  return out;
}

// A bash statement that fills COMPREPLY with an option's values.
std::string bash_values(const CLI::Option& option) {
  switch (values_of(option)) {
    case Values::kChoices:
      return fmt::format(
          "_fettle_words '{}'", fmt::join(choices_of(option), " "));
    case Values::kFolders:
      return "_fettle_files -d";
    case Values::kFiles:
      return "_fettle_files -f";
    default:
      return ":";
  }
}

std::string bash_case(const CLI::App& command) {
  std::string text = fmt::format("    {})\n", command.get_name());
  text += "      case \"$before\" in\n";
  for (const CLI::Option* option : command.get_options()) {
    if (values_of(*option) == Values::kNone || option->get_lnames().empty()) {
      continue;
    }
    std::vector<std::string> names;
    for (const auto& name : option->get_lnames()) names.push_back("--" + name);
    text += fmt::format(
        "        {}) {}; return ;;\n",
        fmt::join(names, "|"),
        bash_values(*option));
  }
  text += "      esac\n";
  text +=
      fmt::format("      options='{}'\n", fmt::join(long_names(command), " "));
  for (const CLI::Option* option : command.get_options()) {
    if (option->get_positional()) {
      text += fmt::format("      argument=\"{}\"\n", bash_values(*option));
      break;
    }
  }
  return text + "      ;;\n";
}

std::string names_of(const CLI::App& app) {
  std::vector<std::string> names;
  for (const CLI::App* command : app.get_subcommands({})) {
    names.push_back(command->get_name());
  }
  return fmt::format("{}", fmt::join(names, " "));
}

// An option of _arguments: '--scope[what it is]:name:(a b)'.
std::string zsh_option(const CLI::Option& option, const std::string& name) {
  std::string spec =
      fmt::format("--{}[{}]", name, plain(option.get_description()));
  if (option.get_items_expected_max() > 1) spec = "*" + spec;
  switch (values_of(option)) {
    case Values::kNone:
      break;
    case Values::kAny:
      spec += ":value:";
      break;
    case Values::kChoices:
      spec += fmt::format(":value:({})", fmt::join(choices_of(option), " "));
      break;
    case Values::kFolders:
      spec += ":folder:_files -/";
      break;
    case Values::kFiles:
      spec += ":file:_files";
      break;
  }
  return fmt::format("'{}'", spec);
}

std::string zsh_case(const CLI::App& command) {
  std::string text =
      fmt::format("    {})\n      _arguments", command.get_name());
  for (const CLI::Option* option : command.get_options()) {
    if (option->get_positional()) {
      text += values_of(*option) == Values::kChoices
                  ? fmt::format(
                        " \\\n        '1:value:({})'",
                        fmt::join(choices_of(*option), " "))
                  : " \\\n        '1:file:_files'";
    }
    for (const std::string& name : option->get_lnames()) {
      text += " \\\n        " + zsh_option(*option, name);
    }
  }
  return text + "\n      ;;\n";
}

std::string fish_option(
    const CLI::App& command,
    const CLI::Option& option,
    const std::string& name) {
  std::string line = fmt::format(
      "complete -c fettle -n '__fish_seen_subcommand_from {}' -l {} -d '{}'",
      command.get_name(),
      name,
      plain(option.get_description()));
  switch (values_of(option)) {
    case Values::kNone:
      break;
    case Values::kAny:
      line += " -x";
      break;
    case Values::kChoices:
      line += fmt::format(" -x -a '{}'", fmt::join(choices_of(option), " "));
      break;
    case Values::kFolders:
      line += " -x -a '(__fish_complete_directories)'";
      break;
    case Values::kFiles:
      line += " -r -F";
      break;
  }
  return line + "\n";
}

}  // namespace

std::string bash_completion(const CLI::App& app) {
  std::string text =
      "# bash completion of fettle; made by 'fettle completion bash'\n"
      "_fettle_words() { COMPREPLY=($(compgen -W \"$1\" -- \"$word\")); }\n"
      "_fettle_files() {\n"
      "  compopt -o filenames 2>/dev/null\n"
      "  mapfile -t COMPREPLY < <(compgen \"$1\" -- \"$word\")\n"
      "}\n"
      "_fettle() {\n"
      "  local word=\"${COMP_WORDS[COMP_CWORD]}\" options='' argument=:\n"
      "  local before=\"${COMP_WORDS[COMP_CWORD-1]}\"\n"
      "  COMPREPLY=()\n"
      "  # --scope=layer comes in three words.\n"
      "  if [[ $word == = ]]; then\n"
      "    word=''\n"
      "  elif [[ $before == = ]]; then\n"
      "    before=\"${COMP_WORDS[COMP_CWORD-2]}\"\n"
      "  fi\n"
      "  if ((COMP_CWORD == 1)); then\n";
  text += fmt::format(
      "    _fettle_words '{} --help --version'\n    return\n  fi\n",
      names_of(app));
  text += "  case \"${COMP_WORDS[1]}\" in\n";
  for (const CLI::App* command : app.get_subcommands({})) {
    text += bash_case(*command);
  }
  text +=
      "  esac\n"
      "  if [[ $word == -* ]]; then\n"
      "    _fettle_words \"$options\"\n"
      "  else\n"
      "    eval \"$argument\"\n"
      "  fi\n"
      "}\n"
      "complete -F _fettle fettle\n";
  return text;
}

std::string zsh_completion(const CLI::App& app) {
  std::string text =
      "#compdef fettle\n"
      "# zsh completion of fettle; made by 'fettle completion zsh'\n"
      "_fettle() {\n"
      "  if (( CURRENT == 2 )); then\n"
      "    local -a commands=(\n";
  for (const CLI::App* command : app.get_subcommands({})) {
    text += fmt::format(
        "      '{}:{}'\n",
        command->get_name(),
        plain(command->get_description()));
  }
  text +=
      "    )\n"
      "    _describe command commands\n"
      "    return\n"
      "  fi\n"
      "  local command=$words[2]\n"
      "  shift words\n"
      "  (( CURRENT-- ))\n"
      "  case $command in\n";
  for (const CLI::App* command : app.get_subcommands({})) {
    text += zsh_case(*command);
  }
  return text + "  esac\n}\n_fettle \"$@\"\n";
}

std::string fish_completion(const CLI::App& app) {
  std::string text =
      "# fish completion of fettle; made by 'fettle completion fish'\n";
  for (const CLI::App* command : app.get_subcommands({})) {
    text += fmt::format(
        "complete -c fettle -f -n __fish_use_subcommand -a {} -d '{}'\n",
        command->get_name(),
        plain(command->get_description()));
  }
  for (const CLI::App* command : app.get_subcommands({})) {
    for (const CLI::Option* option : command->get_options()) {
      for (const std::string& name : option->get_lnames()) {
        text += fish_option(*command, *option, name);
      }
      if (option->get_positional() && values_of(*option) == Values::kChoices) {
        text += fmt::format(
            "complete -c fettle -n '__fish_seen_subcommand_from {}' -x -a "
            "'{}'\n",
            command->get_name(),
            fmt::join(choices_of(*option), " "));
      }
    }
  }
  return text;
}

}  // namespace fettle::cli
