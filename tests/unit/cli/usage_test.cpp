// SPDX-License-Identifier: Apache-2.0
#include "cli/usage.h"

#include <algorithm>
#include <catch2/catch.hpp>
#include <filesystem>
#include <fstream>
#include <optional>

#include "../temporary_folder.h"
#include "cli/command.h"
#include "cli/help.h"
#include "cli/option_kinds.h"
#include "cli/session.h"

using fettle::TemporaryFolder;
using namespace fettle::cli;

namespace {

// A parser of every kind of option.
struct Sample {
  Sample() {
    app.add_option("MODEL", model)->required();
    app.add_option("--out", out)->required();
    auto* keep = app.add_option("--keep", share)->check(CLI::Range(0.0, 1.0));
    app.add_option("--budget", budget)->excludes(keep);
    app.add_option("--round", round)->check(CLI::PositiveNumber);
    app.add_option("--steps", steps)->check(CLI::NonNegativeNumber);
    app.add_option("--scope", scope)
        ->check(CLI::IsMember({"expert", "layer", "global"}));
    app.add_option("--data", data);
    app.add_flag("--resume", resume);
    mark_paths(app, "sample");
  }

  // What is said of a line that can't be parsed.
  std::string told(std::vector<std::string> line) {
    std::reverse(line.begin(), line.end());
    try {
      app.parse(line);
    } catch (const CLI::ParseError& error) {
      const UsageText text = usage_text(app, error);
      return text.subject + ": " + text.message;
    }
    return "parsed";
  }

  CLI::App app{"", "sample"};
  std::string model, out, budget, scope;
  std::optional<double> share;
  std::int64_t round = 1, steps = 0;
  std::vector<std::string> data;
  bool resume = false;
};

std::string told(std::vector<std::string> more) {
  std::vector<std::string> line{"M", "--out", "o"};
  line.insert(line.end(), more.begin(), more.end());
  return Sample().told(line);
}

}  // namespace

TEST_CASE("a misspelt option is told first, with the nearest") {
  CHECK(
      told({"--kep", "0.5"}) ==
      "--kep: is no option of sample: did you mean --keep?");
  CHECK(
      Sample().told({"M", "--ot=o"}) ==
      "--ot: is no option of sample: did you mean --out?");
  CHECK(told({"--vocabulary"}) == "--vocabulary: is no option of sample");
}

TEST_CASE("what is missing is told by name, all at once") {
  CHECK(Sample().told({}) == "MODEL, --out: are missing");
  CHECK(Sample().told({"M"}) == "--out: is missing");
  // A list of files leaves the last word to the argument.
  CHECK(Sample().told({"--out", "o", "--data", "a", "M"}) == "parsed");
}

TEST_CASE("a wrong value is told with what was expected") {
  CHECK(
      told({"--scope", "globl"}) ==
      "--scope: expected one of expert, layer, global, found 'globl': did you "
      "mean global?");
  CHECK(
      told({"--keep", "half"}) ==
      "--keep: expected a number from 0 to 1, found 'half'");
  CHECK(
      told({"--keep", "2"}) ==
      "--keep: expected a number from 0 to 1, found '2'");
  CHECK(
      told({"--round", "0"}) ==
      "--round: expected a whole number above 0, found '0'");
  CHECK(
      told({"--round", "1.5"}) ==
      "--round: expected a whole number above 0, found '1.5'");
  CHECK(
      told({"--steps", "-1"}) ==
      "--steps: expected a whole number of 0 or more, found '-1'");
}

TEST_CASE("counts and contradictions are told") {
  CHECK(told({"--keep"}) == "--keep: expected a number from 0 to 1 behind it");
  CHECK(
      told({"--keep", "0.5", "--keep", "0.6"}) ==
      "--keep: is given more than once");
  CHECK(
      told({"--keep", "0.5", "--budget", "1GiB"}) ==
      "--keep: does not go with --budget; leave one out");
  CHECK(told({"--resume", "N"}) == "N: is more than sample takes");
}

TEST_CASE("whatever names a model's folder is resolved as MODEL is") {
  const TemporaryFolder cache;
  const std::filesystem::path model = cache / "models--a--b";
  std::filesystem::create_directories(model / "snapshots" / "1");
  std::ofstream(model / "snapshots" / "1" / "config.json") << "{}";
  int resolved = 0;
  for (const auto& entry : commands()) {
    CLI::App app("", entry.name);
    const auto command = entry.make();
    command->add_options(app);
    mark_paths(app, entry.name);
    for (CLI::Option* option : app.get_options()) {
      INFO(entry.name << " " << option->get_name());
      // What help calls a model's folder is marked as one.
      const bool named = option->get_description().starts_with("Model folder");
      CHECK((!named || path_kind(*option) == kModel));
      if (path_kind(*option) != kModel) continue;
      option->required(false);
      option->add_result(model.string());
      option->run_callback();
      CHECK(option->results().front() == (model / "snapshots" / "1").string());
      ++resolved;
    }
  }
  CHECK(resolved >= 10);
}

TEST_CASE("every option of every command is told what its value names") {
  // Texts that name no file. A new option belongs here or in mark_paths.
  const std::vector<std::string> texts{
      "--device",       "--columns", "--form",       "--score",    "--scores",
      "--prompt",       "--host",    "--alias",      "--system",   "--stop",
      "--pattern",      "--bits",    "--bits-min",   "--method",   "--block",
      "--lora-targets", "--match",   "--candidates", "--allocate", "--format"};
  for (const auto& entry : commands()) {
    CLI::App app("", entry.name);
    CommonOptions common;
    const auto command = entry.make();
    command->add_options(app);
    add_common_options(app, common, {.budgets = !entry.own_budgets});
    mark_paths(app, entry.name);
    for (const CLI::Option* option : app.get_options()) {
      const std::string type = option->get_type_name();
      INFO(entry.name << " " << option->get_name() << " " << type);
      const bool is_text =
          type.starts_with("TEXT") && choices_of(*option).empty();
      const bool known =
          std::find(texts.begin(), texts.end(), option->get_name()) !=
          texts.end();
      CHECK((!is_text || known));
    }
  }
}
