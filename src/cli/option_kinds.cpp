// SPDX-License-Identifier: Apache-2.0
#include "cli/option_kinds.h"

#include <algorithm>
#include <array>
#include <sstream>

#include "cli/model_option.h"

namespace fettle::cli {
namespace {

struct PathOption {
  std::string_view commands;  // by spaces; empty: all
  const char* option;
  const char* kind;
};

constexpr std::array<PathOption, 32> kPathOptions{{
    {"", "MODEL", kModel},           {"", "RECIPE", kFile},
    {"", "--data", kData},           {"", "--eval-data", kData},
    {"", "--choices", kData},        {"", "--scores", kFolder},
    {"", "--against", kModel},       {"", "--teacher", kModel},
    {"", "--adapter", kFolder},      {"", "--plan", kFile},
    {"", "--errors", kFile},         {"", "--out", kNewFolder},
    {"", "--peft", kNewFolder},      {"", "--report", kNewFile},
    {"", "--json", kNewFile},        {"", "--scratch", kFolder},
    {"analyze", "--merge", kFolder}, {"tune", "--merge", kNewFolder},
    {"", "--chat-template", kFile},  {"", "--ram", kSize},
    {"", "--vram", kSize},           {"", "--budget", kSize},
    {"", "--moments", kSize},        {"", "--rows", kNewFile},
    {"", "--shots-from", kFile},     {"", "--disk", kSize},
    {"eval", "--generate", kData},   {"", "--prompt-file", kFile},
    {"", "--api-key-file", kFile},   {"quant", "--prices", kFolder},
    {"", "--held", kData},           {"", "--recipe", kNewFile},
}};

bool names_command(std::string_view commands, std::string_view command) {
  if (commands.empty()) return true;
  std::istringstream words{std::string(commands)};
  for (std::string word; words >> word;) {
    if (word == command) return true;
  }
  return false;
}

}  // namespace

void mark_paths(CLI::App& app, std::string_view command) {
  for (const PathOption& row : kPathOptions) {
    if (!names_command(row.commands, command)) continue;
    CLI::Option* option = app.get_option_no_throw(row.option);
    if (option == nullptr || !choices_of(*option).empty()) continue;
    // Scores to compute are names.
    if (command == "analyze" && option->check_lname("scores")) continue;
    option->type_name(row.kind);
    if (row.kind == std::string_view(kModel)) {
      option->transform(CLI::Validator(resolve_model, ""));
    }
  }
}

std::string path_kind(const CLI::Option& option) {
  const std::string name = option.get_type_name();
  for (const char* kind :
       {kFolder, kModel, kFile, kData, kNewFolder, kNewFile}) {
    if (name == kind) return name;
  }
  return {};
}

bool is_folder(std::string_view kind) {
  return kind == kFolder || kind == kModel || kind == kNewFolder;
}

// CLI::IsMember gives its values in the option's type name alone:
// "TEXT:{a,b}".
std::vector<std::string> choices_of(const CLI::Option& option) {
  const std::string name = option.get_type_name();
  const auto begin = name.find('{');
  const auto end = name.find('}', begin);
  if (begin == std::string::npos || end == std::string::npos) return {};
  std::vector<std::string> choices;
  std::istringstream list(name.substr(begin + 1, end - begin - 1));
  for (std::string one; std::getline(list, one, ',');) choices.push_back(one);
  return choices;
}

}  // namespace fettle::cli
