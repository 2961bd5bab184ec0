// SPDX-License-Identifier: Apache-2.0
#include "tune/report.h"

#include <catch2/catch.hpp>
#include <fstream>
#include <iterator>

#include "core/error.h"
#include "tune/metrics.h"
#include "whole_runs.h"

using namespace fettle;
using namespace fettle::tune;
using namespace fettle::tune::testing;
using Catch::Contains;

namespace {

// What the page's script reads.
Json page_data(const std::string& page) {
  const std::string open = "id=\"data\">";
  const std::size_t begin = page.find(open) + open.size();
  return Json::parse(page.substr(begin, page.find("</script>", begin) - begin));
}

std::string page_of(const fs::path& file) {
  std::ifstream stream(file);
  return {std::istreambuf_iterator<char>(stream), {}};
}

std::vector<Json> two_steps() {
  return {
      Json::parse(R"({"step": 0, "eval": {"a": {"nll": 3.0, "tokens": 9}}})"),
      Json::parse(R"({"step": 1, "loss": 2.5, "grad_norm": 4.0, "tokens": 64,
        "tokens_per_second": 10.0, "lr": {"neurons": 0.1},
        "seconds": {"forward": 1.0, "backward": 2.0}})"),
      Json::parse(R"({"step": 2, "loss": null, "grad_norm": 0.5, "tokens": 64,
        "tokens_per_second": 20.0, "lr": {"neurons": 0.2},
        "seconds": {"forward": 0.5, "backward": 1.0, "eval": 0.25},
        "eval": {"a": {"nll": 2.0, "tokens": 9}}, "best_step": 2,
        "choices": [[], [1, 0, 3], [2, 2]]})")};
}

}  // namespace

TEST_CASE("a report draws what the metrics hold") {
  const TuneOptions options;
  TuneResult result;
  result.steps = 2;
  result.best_step = 2;
  const ReportInput input{
      .title = "a <b>",
      .options = options,
      .result = result,
      .metrics = two_steps(),
      .trained = {{"neurons", {0, 12, 6}}, {"router", {0, 4, 4}}}};
  const std::string page = report_page(input);
  const Json data = page_data(page);
  CHECK(data["steps"] == Json::parse("[1, 2]"));
  CHECK(data["loss"] == Json::parse("[2.5, null]"));
  CHECK(data["kl"].is_null());
  CHECK(data["lr"] == Json::parse(R"({"neurons": [0.1, 0.2]})"));
  CHECK(data["seconds"]["forward"] == Json::parse("[1.0, 0.5]"));
  CHECK(data["seconds"]["eval"] == Json::parse("[null, 0.25]"));
  CHECK(
      data["held_out"] ==
      Json::parse(R"({"steps": [0, 2], "files": {"a": [3.0, 2.0]}})"));
  CHECK(data["best_step"] == 2);
  CHECK(data["trained"][0]["weights"] == Json::parse("[0, 12, 6]"));
  CHECK(data["choices"]["step"] == 2);
  CHECK(
      data["choices"]["shares"] ==
      Json::parse("[[], [0.25, 0.0, 0.75], [0.5, 0.5]]"));
  // 18 + 8 weights; 4.75 seconds in all; what the adapter gains.
  for (const char* text : {">26<", ">4.8 s<", ">-1.0000<", ">2 of 3<"}) {
    CHECK_THAT(page, Contains(text));
  }
  CHECK_THAT(page, Contains("a &lt;b&gt;") && !Contains("<b>"));
  CHECK_THAT(page, !Contains("src=\"http") && !Contains("{{"));
}

TEST_CASE("a report without evaluation or routers says nothing of them") {
  const TuneOptions options;
  const TuneResult result;
  auto metrics = two_steps();
  metrics.erase(metrics.begin());
  metrics[1].erase("eval");
  metrics[1]["choices"] = Json::parse("[[], []]");
  metrics[0]["kl"] = 1.5;
  const std::string page = report_page(
      {.title = "t",
       .options = options,
       .result = result,
       .metrics = metrics,
       .trained = {}});
  CHECK(page_data(page)["choices"].is_null());
  CHECK(page_data(page)["kl"] == Json::parse("[1.5, null]"));
  CHECK_THAT(page, !Contains("id=\"held\"") && !Contains("id=\"choices\""));
}

TEST_CASE("metrics that are damaged are refused") {
  const TemporaryFolder folder;
  const fs::path file = folder.path() / "metrics.jsonl";
  std::ofstream(file) << "{\"step\": 0}\n{\"step\": ";
  CHECK_THROWS_WITH(read_metrics(file), Contains("a JSON object"));
}

TEST_CASE_METHOD(WholeRuns, "every run leaves a report of all its steps") {
  TuneOptions options = small_options();
  options.method = GENERATE("usaf", "lora", "full", "smt", "esft+condenser");
  if (options.method != "usaf") {
    const TuneOptions defaults;
    options.frac = defaults.frac;
    options.reselect_every = 0;
    options.score_sequences = defaults.score_sequences;
    options.router_warmup = defaults.router_warmup;
    options.router_lr = defaults.router_lr;
  }
  if (options.method == "smt") options.block = "2x2";
  if (options.method == "esft+condenser") options.condensers = 1;
  StopAfter reporter(4);
  const fs::path out = folder.path() / "out";
  run(out, options, reporter);
  options.resume = true;
  const TuneResult result = run(out, options);
  const Json data = page_data(page_of(out / "report.html"));
  CHECK(data["steps"].size() == 7);
  CHECK(data["held_out"]["steps"] == Json::parse("[0, 3, 6, 7]"));
  CHECK(data["best_step"] == result.best_step);
  std::int64_t weights = 0;
  for (const Json& part : data["trained"]) {
    REQUIRE(part["weights"].size() == 3);
    weights += part["outside"].get<std::int64_t>();
    for (const Json& count : part["weights"]) {
      weights += count.get<std::int64_t>();
    }
  }
  CHECK(weights == result.trainable_weights);
  CHECK(weights > 0);

  // 64 tokens choose two experts each in the layers that have a router.
  const auto lines = lines_of(out / "metrics.jsonl");
  CHECK(lines[3].contains("choices"));
  CHECK_FALSE(lines[4].contains("choices"));
  const Json& choices = lines[7]["choices"];
  REQUIRE(choices.size() == 3);
  CHECK(choices[0].empty());
  for (const int layer : {1, 2}) {
    std::int64_t sum = 0;
    for (const Json& count : choices[layer]) sum += count.get<std::int64_t>();
    CHECK(choices[layer].size() == 4);
    CHECK(sum == 2 * 64);
  }
}
