// SPDX-License-Identifier: Apache-2.0
#include "cli/recipe.h"

#include <catch2/catch.hpp>
#include <fstream>

#include "../temporary_folder.h"
#include "core/error.h"

using Catch::Contains;
using fettle::TemporaryFolder;
using fettle::UserError;
using namespace fettle::cli;

namespace {

Recipe read(const std::string& text) {
  const TemporaryFolder folder;
  const std::string file = folder / "r.yaml";
  std::ofstream(file, std::ios::binary) << text;
  return read_recipe(file);
}

const std::string kHead = "model: m\nout: work\n";
const std::string kWhole =
    "model: m\n"
    "out: work\n"
    "data: {calibration: [a.jsonl, b.jsonl:2], eval: e.jsonl}\n"
    "seed: 7\n"
    "seq_len: 128\n"
    "stages:\n"
    "  - analyze: {scores: [obs, wanda], tokens: 1024}\n"
    "  - trim:\n"
    "      keep: 0.5\n"
    "      ridge_lambda: 1e-2\n"
    "  - export\n";

void check_whole(const Recipe& recipe) {
  CHECK(recipe.model == "m");
  CHECK(recipe.out == "work");
  CHECK(recipe.calibration == std::vector<std::string>{"a.jsonl", "b.jsonl:2"});
  CHECK(recipe.train.empty());
  CHECK(recipe.eval == std::vector<std::string>{"e.jsonl"});
  CHECK(recipe.seed == 7);
  CHECK(recipe.seq_len == 128);
  REQUIRE(recipe.stages.size() == 3);
  CHECK(
      recipe.stages[0].arguments ==
      std::vector<std::string>{"--scores=obs,wanda", "--tokens=1024"});
  CHECK(recipe.stages[1].value("--keep") == "0.5");
  CHECK(recipe.stages[1].has("--ridge-lambda"));
  CHECK_FALSE(recipe.stages[1].has("--ridge"));
  CHECK(recipe.stages[2].arguments.empty());
}

}  // namespace

TEST_CASE("a recipe is read as it stands") { check_whole(read(kWhole)); }

TEST_CASE(
    "a byte order mark, CRLF and a trailing document end change nothing") {
  check_whole(read("\xEF\xBB\xBF" + kWhole));
  std::string crlf;
  for (const char c : kWhole) crlf += c == '\n' ? "\r\n" : std::string(1, c);
  check_whole(read(crlf));
  check_whole(read("---\n" + kWhole + "...\n"));
}

TEST_CASE("anchors and aliases stand for what they name") {
  const Recipe recipe = read(
      "model: m\nout: o\ndata: {calibration: &d [a.jsonl], train: *d}\n"
      "stages: &s\n  - export\n");
  CHECK(recipe.train == recipe.calibration);
  CHECK(recipe.stages.size() == 1);
}

TEST_CASE("the way to read data is an argument of all that read it") {
  const auto data = [](const std::string& more) {
    return kHead + "data: {eval: e.jsonl, " + more + "}\nstages: [export]\n";
  };
  const Recipe recipe =
      read(data("columns: [prompt=question, completion=answer]"));
  CHECK(
      recipe.data_flags ==
      std::vector<std::string>{"--columns=prompt=question,completion=answer"});
  CHECK(
      read(data("form: alpaca")).data_flags ==
      std::vector<std::string>{"--form=alpaca"});
  CHECK_THROWS_WITH(
      read(data("form: alpacca")),
      Contains("r.yaml:3") && Contains("found 'alpacca'"));
  CHECK_THROWS_WITH(
      read(data("form: alpaca, columns: text=words")),
      Contains("beside --columns"));
}

TEST_CASE("a key that stands twice is refused at every level, with its line") {
  CHECK_THROWS_WITH(
      read("model: m\nmodel: n\nout: o\nstages: [export]\n"),
      Contains("r.yaml:2") && Contains("'model' stands twice in the recipe"));
  CHECK_THROWS_WITH(
      read(kHead + "data: {eval: a, eval: b}\nstages: [export]\n"),
      Contains("'eval' stands twice in data"));
  CHECK_THROWS_WITH(
      read(kHead + "stages:\n  - trim: {keep: 0.5, keep: 0.25}\n"),
      Contains("r.yaml:4") && Contains("'keep' stands twice"));
  CHECK_THROWS_WITH(
      read(kHead + "stages:\n  - tune: {seq_len: 2, seq-len: 3}\n"),
      Contains("'seq-len' stands twice"));
}

TEST_CASE("unknown keys and stages are told with what was perhaps meant") {
  CHECK_THROWS_WITH(
      read(kHead + "seqlen: 5\nstages: [export]\n"),
      Contains("r.yaml:3") && Contains("did you mean 'seq_len'?"));
  CHECK_THROWS_WITH(
      read("model: m\nout: o\nStages: [export]\n"),
      Contains("did you mean 'stages'?"));
  CHECK_THROWS_WITH(
      read(kHead + "stages: [trimm]\n"), Contains("did you mean 'trim'?"));
  CHECK_THROWS_WITH(
      read(kHead + "stages: [merge]\n"), Contains("unknown stage 'merge'"));
  CHECK_THROWS_WITH(read("out: o\nstages: [export]\n"), Contains("'model'"));
}

TEST_CASE("what is no recipe is refused") {
  CHECK_THROWS_WITH(read(""), Contains("is empty"));
  CHECK_THROWS_WITH(read("- a\n"), Contains("must be a map"));
  CHECK_THROWS_WITH(read("model: [\n"), Contains("not valid YAML"));
  CHECK_THROWS_WITH(
      read(kHead + "stages:\n\t- export\n"), Contains("r.yaml:4"));
  CHECK_THROWS_WITH(
      read(kHead + "---\nstages: [export]\n"), Contains("a second"));
  CHECK_THROWS_WITH(read(kHead + "stages: []\n"), Contains("at least one"));
  CHECK_THROWS_WITH(
      read(kHead + "stages:\n  - trim:\n    keep: 0.5\n"),
      Contains("indented below"));
  CHECK_THROWS_AS(read_recipe("no-such.yaml"), UserError);
}

TEST_CASE("values of another kind are refused with what was found") {
  CHECK_THROWS_WITH(
      read("model: ~\nout: o\nstages: [export]\n"),
      Contains("'model' must be a value, found nothing"));
  CHECK_THROWS_WITH(
      read(kHead + "seed: -1\nstages: [export]\n"), Contains("found '-1'"));
  CHECK_THROWS_WITH(
      read(kHead + "seq_len: long\nstages: [export]\n"),
      Contains("'seq_len' must be a whole number"));
  CHECK_THROWS_WITH(
      read(kHead + "stages:\n  - trim: {keep: {a: 1}}\n"),
      Contains("'keep' must be a value, found a map"));
  CHECK_THROWS_WITH(
      read(kHead + "stages:\n  - trim: {keep: }\n"),
      Contains("'keep' must be a value, found nothing"));
  CHECK_THROWS_WITH(
      read(kHead + "stages:\n  - analyze: {scores: []}\n"),
      Contains("'scores' is empty"));
}

TEST_CASE("options that a stage can't have are refused with the reason") {
  const auto stage = [](const std::string& text) {
    return kHead + "stages:\n  - " + text + "\n";
  };
  CHECK_THROWS_WITH(
      read(stage("trim: {keep: 0.5, out: foo}")), Contains("the recipe's"));
  CHECK_THROWS_WITH(
      read(stage("tune: {device: cuda}")), Contains("fettle run"));
  CHECK_THROWS_WITH(read(stage("tune: {seed: 3}")), Contains("for all stages"));
  CHECK_THROWS_WITH(
      read(stage("trim: {keep: 0.5, plan_only: true}")),
      Contains("leaves no model"));
  CHECK_THROWS_WITH(read(stage("tune: {merge: m}")), Contains("by itself"));
  CHECK(
      read(stage("trim: {keep: 0.5, plan-only: false, merge: m_smoe}"))
          .stages[0]
          .arguments ==
      std::vector<std::string>{"--keep=0.5", "--merge=m_smoe"});
}
