// SPDX-License-Identifier: Apache-2.0
#include "cli/usage.h"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <optional>

#include "cli/option_kinds.h"
#include "cli/spelling.h"

namespace fettle::cli {
namespace {

std::string meant(const std::string& near) {
  return near.empty() ? "" : fmt::format(": did you mean {}?", near);
}

std::vector<std::string> option_names(const CLI::App& parser) {
  std::vector<std::string> names;
  for (const CLI::Option* option : parser.get_options()) {
    for (const std::string& name : option->get_lnames()) {
      names.push_back("--" + name);
    }
  }
  return names;
}

// About what the parser had no use for; a misspelt option comes first, since
// what else is wrong follows from it.
std::optional<UsageText> unknown_text(const CLI::App& parser) {
  const std::vector<std::string> rest = parser.remaining();
  const auto option = std::ranges::find_if(rest, [](const std::string& text) {
    return text.starts_with("-") && text.size() > 1;
  });
  if (option == rest.end()) return std::nullopt;
  const std::string name = option->substr(0, option->find('='));
  return UsageText{
      name,
      fmt::format(
          "is no option of {}{}",
          parser.get_name(),
          meant(nearest(name, option_names(parser))))};
}

std::optional<UsageText> missing_text(const CLI::App& parser) {
  std::vector<std::string> names;
  for (const CLI::Option* option : parser.get_options()) {
    if (!option->get_required() || option->count() > 0) continue;
    names.push_back(option->get_name());
  }
  if (names.empty()) return std::nullopt;
  return UsageText{
      fmt::format("{}", fmt::join(names, ", ")),
      names.size() == 1 ? "is missing" : "are missing"};
}

// The option that the error names: the longest name that its text holds.
const CLI::Option* named_option(
    const CLI::App& parser, const std::string& text) {
  const CLI::Option* found = nullptr;
  for (const CLI::Option* option : parser.get_options()) {
    if (text.find(option->get_name()) == std::string::npos) continue;
    if (found == nullptr ||
        option->get_name().size() > found->get_name().size()) {
      found = option;
    }
  }
  return found;
}

// The value that an option with a fixed set of them can't have; of others, the
// first.
std::string wrong_value(const CLI::Option& option) {
  const std::vector<std::string> choices = choices_of(option);
  const auto& values = option.results();
  for (const std::string& value : values) {
    if (choices.empty() || std::ranges::find(choices, value) == choices.end()) {
      return value;
    }
  }
  return values.empty() ? "" : values.back();
}

std::string value_message(const CLI::Option& option, const std::string& told) {
  const auto own = told.find("expected ");
  if (own != std::string::npos) return told.substr(own);
  const std::string value = wrong_value(option);
  return fmt::format(
      "expected {}, found '{}'{}",
      expected_text(option),
      value,
      meant(nearest(value, choices_of(option))));
}

std::string count_message(const CLI::Option& option) {
  if (option.results().size() > 1) return "is given more than once";
  return fmt::format("expected {} behind it", expected_text(option));
}

}  // namespace

std::string expected_text(const CLI::Option& option) {
  const std::vector<std::string> choices = choices_of(option);
  if (!choices.empty()) {
    return fmt::format("one of {}", fmt::join(choices, ", "));
  }
  const std::string kind = path_kind(option);
  if (is_folder(kind)) return "a folder";
  if (kind == kFile || kind == kNewFile) return "a file";
  if (kind == kData) return "data files";
  const std::string type = option.get_type_name();
  if (type == kSize) return "a size, such as 6GiB";
  std::string what = "a value";
  if (type.starts_with("INT") || type.starts_with("UINT")) {
    what = "a whole number";
  } else if (type.starts_with("FLOAT")) {
    what = "a number";
  }
  const auto range = type.find(" in [");
  if (range != std::string::npos) {
    std::string bounds = type.substr(range + 5);
    bounds.pop_back();
    const auto dash = bounds.find(" - ");
    return fmt::format(
        "{} from {} to {}",
        what,
        bounds.substr(0, dash),
        bounds.substr(dash + 3));
  }
  if (type.find("NONNEGATIVE") != std::string::npos)
    return what + " of 0 or more";
  if (type.find("POSITIVE") != std::string::npos) return what + " above 0";
  return what;
}

UsageText usage_text(const CLI::App& parser, const CLI::ParseError& error) {
  if (auto text = unknown_text(parser)) return *text;
  const std::string told = error.what();
  if (error.get_name() == "RequiredError") {
    if (auto text = missing_text(parser)) return *text;
  }
  if (!parser.remaining().empty()) {
    return {
        parser.remaining().front(),
        fmt::format("is more than {} takes", parser.get_name())};
  }
  if (error.get_name() == "ExcludesError") {
    const auto middle = told.find(" excludes ");
    if (middle != std::string::npos) {
      return {
          told.substr(0, middle),
          fmt::format(
              "does not go with {}; leave one out",
              told.substr(middle + std::string(" excludes ").size()))};
    }
  }
  const CLI::Option* option = named_option(parser, told);
  if (option == nullptr) return {parser.get_name(), told};
  if (error.get_name() == "ArgumentMismatch") {
    return {option->get_name(), count_message(*option)};
  }
  if (error.get_name() == "ValidationError" ||
      error.get_name() == "ConversionError") {
    return {option->get_name(), value_message(*option, told)};
  }
  return {option->get_name(), told};
}

}  // namespace fettle::cli
