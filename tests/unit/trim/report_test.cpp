// SPDX-License-Identifier: Apache-2.0
#include "trim/report.h"

#include <catch2/catch.hpp>
#include <fstream>
#include <iterator>

#include "../artifact/tiny_model.h"

namespace fettle::trim {
namespace {

using Catch::Matchers::Contains;
using fettle::testing::TemporaryFolder;
using fettle::testing::TinyModel;

// Layer 0 keeps all experts, one of them empty and one whole; layer 1 loses
// expert 1. Experts are 6 neurons wide.
artifact::TrimPlan plan_to_report(const model::ModelReader& reader) {
  artifact::TrimPlan plan;
  plan.model_fingerprint = reader.fingerprint();
  plan.layers = {
      {{{0, {0, 2, 5}}, {1, {}}, {2, {0, 1, 2, 3, 4, 5}}, {3, {4}}}, 2},
      {{{0, {1}}, {2, {2, 3}}, {3, {0, 1, 2, 3, 4}}}, 2}};
  plan.options = {{"score", "a <b> & </script>"}, {"keep", 0.5}};
  return plan;
}

// What the page's script reads.
Json page_data(const std::string& page) {
  const std::string open = "id=\"data\">";
  const std::size_t begin = page.find(open) + open.size();
  return Json::parse(page.substr(begin, page.find("</script>", begin) - begin));
}

struct TrimToReport {
  TinyModel tiny;
  model::ModelReader reader{tiny.path()};
  artifact::TrimPlan plan = plan_to_report(reader);
  TrimResult result = trimmed_size(reader, plan, Repair::kNone);

  ReportInput input() const {
    return {
        .title = "tiny",
        .config = reader.config(),
        .plan = plan,
        .result = result,
        .repair = result.repair ? Repair::kRidge : Repair::kNone};
  }
};

TEST_CASE_METHOD(TrimToReport, "A report holds the widths it draws") {
  const std::string page = report_page(input());
  const Json data = page_data(page);
  REQUIRE(
      data["kept"] ==
      Json::parse("[[0.5, 0, 1, 0.1667], [0.1667, -1, 0.3333, 0.8333]]"));
  // Removed, empty, ten steps, whole.
  REQUIRE(
      data["histogram"]["counts"] ==
      Json::parse("[1, 1, 0, 2, 0, 1, 0, 1, 0, 0, 1, 0, 1]"));
  REQUIRE(data["histogram"]["labels"].size() == 13);
  REQUIRE(data["error_left"].is_null());
  REQUIRE_THAT(page, Contains("score a &lt;b&gt; &amp; &lt;/script&gt;, keep"));
  REQUIRE_THAT(page, Contains("<td>10 of 24</td><td>41.7 %</td>"));
  REQUIRE_THAT(page, Contains("<td>3 of 4</td>"));
  // The least, median and most of layer 0, and its expert without a neuron.
  REQUIRE_THAT(page, Contains("<td>0, 3, 6</td><td>1</td>"));
  REQUIRE_THAT(page, !Contains("error left</th>"));
}

TEST_CASE_METHOD(
    TrimToReport, "A report tells what the repair left of the error") {
  result.repair = RepairReport{
      .tokens = 321,
      .refitted = 5,
      .scarce = 2,
      .unhit = 1,
      .error_left = {0.25, 0.0375}};
  const std::string page = report_page(input());
  REQUIRE(page_data(page)["error_left"] == Json::parse("[25.0, 3.75]"));
  REQUIRE_THAT(page, Contains("5 experts were fitted to 321 tokens"));
  REQUIRE_THAT(page, Contains("<td>25.0 %</td></tr>"));
}

TEST_CASE_METHOD(TrimToReport, "A trim's report needs no network") {
  const std::string page = report_page(input());
  REQUIRE_THAT(page, Contains("Chart.js v"));
  REQUIRE_THAT(page, Contains("function heatMap"));
  REQUIRE_THAT(page, Contains("@media print"));
  REQUIRE_THAT(page, !Contains("<link"));
  REQUIRE_THAT(page, !Contains("src="));
  REQUIRE_THAT(page, !Contains("@import"));
}

TEST_CASE_METHOD(TrimToReport, "A report shows quality first") {
  REQUIRE_THAT(report_page(input()), !Contains("Quality on held-out text"));
  const Json file{
      {"file", "held.jsonl"},
      {"tokens", 40},
      {"nll_before", 2.0},
      {"nll", 2.25},
      {"kl", 0.125},
      {"top1", 0.5}};
  ReportInput with = input();
  with.quality = file;
  with.quality["files"] = {file, file};
  const std::string page = report_page(with);
  REQUIRE(
      page.find("Quality on held-out text") < page.find("Before and after"));
  REQUIRE_THAT(
      page,
      Contains("held.jsonl</td><td>40</td><td>2.0000</td><td>2.2500</td><td>"
               "+0.2500</td><td>0.1250</td><td>50.0 %</td>"));
  REQUIRE_THAT(page, Contains("<td class=\"name\">all</td>"));
}

TEST_CASE_METHOD(TrimToReport, "A report is written to a file") {
  const TemporaryFolder out;
  write_report(out.path() / "report.html", input());
  std::ifstream file(out.path() / "report.html");
  const std::string text{
      std::istreambuf_iterator<char>(file), std::istreambuf_iterator<char>()};
  REQUIRE_THAT(text, Contains("tiny, trimmed</h1>"));
  REQUIRE(page_data(text)["kept"] == page_data(report_page(input()))["kept"]);
}

}  // namespace
}  // namespace fettle::trim
