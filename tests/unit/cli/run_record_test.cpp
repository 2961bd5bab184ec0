// SPDX-License-Identifier: Apache-2.0
#include "cli/run_record.h"

#include <catch2/catch.hpp>
#include <fstream>

#include "../temporary_folder.h"
#include "core/error.h"

using fettle::TemporaryFolder;
using namespace fettle;
using namespace fettle::cli;
namespace fs = std::filesystem;

namespace {

ChainStep step_of(const TemporaryFolder& work, const std::string& key) {
  ChainStep step;
  step.name = "02-trim";
  step.command = "trim";
  step.out = work / step.name;
  step.makes_model = true;
  step.key = key;
  return step;
}

}  // namespace

TEST_CASE("a step is whole, begun or stale by its folder and its key") {
  const TemporaryFolder work;
  const ChainStep step = step_of(work, "k");
  RunRecord record(work.path());
  CHECK_FALSE(record.is_whole(step));
  record.begin(step);
  fs::create_directory(step.out.string() + ".partial");
  CHECK(record.is_begun(step));
  fs::rename(step.out.string() + ".partial", step.out);
  CHECK(RunRecord(work.path()).is_whole(step));
  CHECK_FALSE(record.is_begun(step));
  const ChainStep other = step_of(work, "another");
  CHECK(record.is_stale(other));
  CHECK_FALSE(record.is_whole(other));
  CHECK_FALSE(record.is_stale(step));
}

TEST_CASE("a loss has a key of its own, and waits for its step's") {
  const TemporaryFolder work;
  const ChainStep step = step_of(work, "k");
  RunRecord record(work.path());
  record.set_loss(step, "data 1", {{"mean_nll", 2.5}});
  record.finish(step, {{"bytes", 10}});
  const RunRecord again(work.path());
  CHECK(again.result(step)["bytes"] == 10);
  CHECK(again.loss(step, "data 1")["mean_nll"] == 2.5);
  CHECK(again.loss(step, "data 2").is_null());
  CHECK(again.loss(step_of(work, "another"), "data 1").is_null());
  CHECK(again.result(step_of(work, "another")).empty());
}

TEST_CASE("a step without a folder is whole when its result is known") {
  const TemporaryFolder work;
  ChainStep step = step_of(work, "k");
  step.out.clear();
  RunRecord record(work.path());
  record.begin(step);
  CHECK_FALSE(record.is_whole(step));
  record.finish(step, {{"mean_nll", 1.0}});
  CHECK(record.is_whole(step));
}

TEST_CASE("a record that was tampered with counts as not there") {
  const TemporaryFolder work;
  const ChainStep step = step_of(work, "k");
  for (const char* text :
       {R"({"02-trim": 3})",
        R"({"02-trim": {"key": ["k"]}})",
        R"({"02-trim": {"key": "k", "result": 4, "loss": []}})",
        R"({"02-trim": {"key": "k", "loss": {"key": "d", "eval": {}}}})",
        R"({"02-trim": {"key": "k", "loss": {"key": "d",
            "eval": {"mean_nll": "x"}}}})"}) {
    std::ofstream(work / "run.json") << text;
    const RunRecord record(work.path());
    CHECK(record.result(step).empty());
    CHECK(record.loss(step, "d").is_null());
  }
  std::ofstream(work / "run.json") << "[1]";
  CHECK_THROWS_AS(RunRecord(work.path()), UserError);
}
