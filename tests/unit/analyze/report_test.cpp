// SPDX-License-Identifier: Apache-2.0
#include "analyze/report.h"

#include <catch2/catch.hpp>
#include <fstream>
#include <iterator>

#include "../artifact/tiny_model.h"
#include "analyze/cut_advice.h"
#include "core/error.h"

namespace fettle::analyze {
namespace {

using Catch::Matchers::Contains;

artifact::ScoreFile sample_scores() {
  artifact::ScoreFile file;
  file.tokens = 12;
  file.layers.resize(2);
  artifact::LayerScores& layer = file.layers[1];
  layer.widths = {2, 0, 3};
  layer.neuron["mask_fisher"] = at::tensor({5.0f, 4.0f, 3.0f, 2.0f, 1.0f});
  layer.expert["reap"] = at::tensor({0.5f, 0.0f, 0.12345678f});
  layer.mean_h = at::zeros({5});
  layer.tokens = at::tensor(std::vector<std::int64_t>{6, 0, 2});
  layer.router_entropy = 0.75;
  return file;
}

// What the page's script reads.
Json page_data(const std::string& page) {
  const std::string open = "id=\"data\">";
  const std::size_t begin = page.find(open) + open.size();
  return Json::parse(page.substr(begin, page.find("</script>", begin) - begin));
}

TEST_CASE("A report holds the scores it draws") {
  const std::string page =
      report_page(sample_scores(), {.title = "a <b> & </script>"});
  const Json data = page_data(page);
  REQUIRE(data["scores"].size() == 2);
  REQUIRE(data["scores"][0]["name"] == "mask_fisher");
  REQUIRE(data["scores"][0]["rows"] == Json::parse("[[], [9, 0, 6]]"));
  REQUIRE(data["scores"][1]["rows"][1][2] == Approx(0.1235));
  // Six and two of eight tokens, over the mean of 8 / 3.
  REQUIRE(data["load"] == Json::parse("[[], [2.25, 0, 0.75]]"));
  // The better two of five neurons are both of the first expert.
  REQUIRE(data["kept"].size() == 1);
  REQUIRE(data["kept"][0]["rows"] == Json::parse("[[], [1, 0, 0]]"));
  REQUIRE(data["spread"][1] == Approx(0.5623));
  REQUIRE(data["even"][1] == Approx(1.099));
  REQUIRE(data["overlap"]["scores"].empty());
  REQUIRE_THAT(page, !Contains("Overlap of domains"));
  REQUIRE(data["entropy"] == Json::parse("[null, 0.75]"));
  REQUIRE_THAT(page, Contains("a &lt;b&gt; &amp; &lt;/script&gt;"));
  REQUIRE_THAT(page, Contains("<td>60.00 %</td>"));
}

TEST_CASE("A report predicts the loss of a cut by the scores that can") {
  const Json data = page_data(report_page(sample_scores(), {.title = "x"}));
  REQUIRE(data["cost"].size() == 1);
  const Json& cost = data["cost"][0];
  REQUIRE(cost["name"] == "mask_fisher");
  REQUIRE(cost["kept"].size() == 40);
  // Scores 1 to 5 of 12 tokens; a mask's information counts half.
  REQUIRE(cost["kept"][0] == 100);
  REQUIRE(cost["nats"][0] == 0);
  REQUIRE(cost["kept"][8] == 80);
  REQUIRE(cost["nats"][8] == Approx(0.5 * 1 / 12).epsilon(1e-3));
  REQUIRE(cost["kept"][24] == 40);
  REQUIRE(cost["nats"][24] == Approx(0.5 * (1 + 2 + 3) / 12).epsilon(1e-3));
}

TEST_CASE("A curve of losses has a knee, and says where a cut hurts") {
  CutCurve curve{"obs", {1, 0.75, 0.5, 0.25}, {0, 0.01, 0.03, 0.2}};
  REQUIRE(curve.at(1) == 0);
  REQUIRE(curve.at(0.875) == Approx(0.005));
  REQUIRE(curve.at(0.5) == Approx(0.03));
  REQUIRE(curve.at(0.1) == Approx(0.2));
  // Steps of 0.0004, 0.0008 and 0.0068 nats a percent.
  REQUIRE(curve.knee() == 0.5);
  REQUIRE_THAT(curve.text(), Contains("50 % 0.03, 25 % 0.2; below 50 %"));
  REQUIRE_THAT(curve.text(), !Contains("Warning"));
  curve.nats = {0, 0.1, 0.2, 0.4};
  REQUIRE(curve.knee() == 1);
  REQUIRE_THAT(
      curve.text(), Contains("Warning: half of the neurons is expected"));
  curve.nats = {0, 0.001, 0.002, 0.003};
  REQUIRE(curve.knee() == 0.25);
}

TEST_CASE("A report compares the experts that files choose") {
  artifact::ScoreFile scores = sample_scores();
  scores.run["by_file"] = {
      {{"file", "math"},
       {"tokens", 4},
       {"choices", {Json::array(), {3, 1, 0}}}},
      {{"file", "code"},
       {"tokens", 4},
       {"choices", {Json::array(), {0, 2, 2}}}}};
  const std::string page = report_page(scores, {.title = "x"});
  const Json data = page_data(page)["by_file"];
  REQUIRE(data["names"] == Json({"math", "code"}));
  REQUIRE(
      data["shares"] == Json::parse("[[[], [75, 25, 0]], [[], [0, 50, 50]]]"));
  REQUIRE_THAT(page, Contains("Which experts each file uses"));
  scores.run["by_file"][0]["choices"] = {"none"};
  REQUIRE_THROWS_AS(report_page(scores, {.title = "x"}), UserError);
}

TEST_CASE("A report explains the scores it shows") {
  const std::string page = report_page(sample_scores(), {.title = "x"});
  REQUIRE_THAT(page, Contains("<dt>mask_fisher</dt>"));
  REQUIRE_THAT(page, Contains("Unit: nats summed over tokens"));
  REQUIRE_THAT(page, Contains("<dt>reap</dt>"));
}

TEST_CASE("A report of merged scores shows what their runs share") {
  artifact::ScoreFile scores = sample_scores();
  scores.merged = {{"math", 5, {}}, {"code", 7, {}}, {"plays", 1, {}}};
  for (artifact::MergedRun& run : scores.merged) run.ranks.resize(2);
  const auto ranks = [](std::vector<int> values) {
    return at::tensor(values, at::kInt);
  };
  scores.merged[0].ranks[1]["mask_fisher"] = ranks({0, 1, 2, 3, 4});
  scores.merged[1].ranks[1]["mask_fisher"] = ranks({1, 2, 0, 3, 4});
  scores.merged[2].ranks[1]["mask_fisher"] = ranks({4, 3, 2, 1, 0});
  const std::string page = report_page(scores, {.title = "x"});
  const Json overlap = page_data(page)["overlap"];
  REQUIRE(overlap["names"] == Json({"math", "code", "plays"}));
  // Halves {0, 1}, {2, 0} and {4, 3}.
  const Json pairs = overlap["scores"][0]["pairs"];
  REQUIRE(pairs.size() == 3);
  REQUIRE(pairs[0]["all"] == Approx(1.0 / 3).epsilon(1e-3));
  REQUIRE(pairs[1]["all"] == 0);
  REQUIRE(pairs[0]["layers"][0].is_null());
  REQUIRE(pairs[0]["layers"][1] == pairs[0]["all"]);
  REQUIRE_THAT(page, Contains("Overlap of domains"));
  REQUIRE_THAT(page, Contains(">33.3 %</td>"));
  REQUIRE_THAT(page, Contains(">100.0 %</td>"));
}

TEST_CASE("A report needs no network") {
  const std::string page = report_page(sample_scores(), {.title = "x"});
  REQUIRE_THAT(page, Contains("Chart.js v"));
  REQUIRE_THAT(page, !Contains("<link"));
  REQUIRE_THAT(page, !Contains("src="));
  REQUIRE_THAT(page, !Contains("@import"));
}

TEST_CASE("A report is written to a file") {
  const fettle::testing::TemporaryFolder folder;
  const auto path = folder.path() / "report.html";
  write_report(path, sample_scores(), {.title = "x"});
  std::ifstream file(path);
  const std::string text{
      std::istreambuf_iterator<char>(file), std::istreambuf_iterator<char>()};
  REQUIRE(text == report_page(sample_scores(), {.title = "x"}));
}

}  // namespace
}  // namespace fettle::analyze
