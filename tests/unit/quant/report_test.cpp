// SPDX-License-Identifier: Apache-2.0
#include "quant/report.h"

#include <catch2/catch.hpp>
#include <fstream>
#include <iterator>

#include "calibration.h"

namespace fettle::quant {
namespace {

using Catch::Matchers::Contains;

// Two layers behind the embeddings; the second's attention is kept.
QuantResult sample_result() {
  QuantResult result;
  result.before.bytes = 4000;
  result.after.bytes = 1000;
  result.after.parameters = 1600;
  result.tokens = 77;
  result.layers.resize(3);
  for (std::int64_t l = 0; l < 3; ++l) result.layers[l].layer = l - 1;
  // weights, bytes, error, energy, matrices, scarce, unseen
  result.layers[0].roles = {{"embed_tokens", {64, 64, 2, 50, 1, 0, 0}}};
  result.layers[1].roles = {
      {"o_proj", {100, 50, 1, 100, 1, 0, 0}},
      {"expert_up", {200, 75, 3, 60, 4, 3, 1}},
      {"expert_down", {200, 50, 0, 0, 4, 2, 2}}};
  result.layers[2].roles = {
      {"o_proj", {100, 400, 0, 0, 0, 0, 0}},
      {"expert_up", {200, 25, 9, 60, 4, 0, 0}},
      {"expert_down", {200, 50, 1, 8, 4, 1, 0}}};
  return result;
}

TEST_CASE("Roles are summed over layers") {
  const auto roles = totals(sample_result());
  REQUIRE(roles.size() == 4);
  const RoleRecord& up = roles.at("expert_up");
  REQUIRE(up.weights == 400);
  REQUIRE(up.bytes == 100);
  REQUIRE(up.error == 12);
  REQUIRE(up.energy == 120);
  REQUIRE(up.matrices == 8);
  REQUIRE(up.scarce == 3);
  REQUIRE(up.unseen == 1);
  REQUIRE(roles.at("o_proj").bytes == 450);
}

TEST_CASE("Charts are of what was quantized, by layer") {
  const Json data = report_data(sample_result());
  REQUIRE(data["layers"] == Json({0, 1}));
  // In each layer the experts that few tokens chose, and those that none did.
  REQUIRE(data["scarce"] == Json({2, 1}));
  REQUIRE(data["unseen"] == Json({3, 0}));
  const Json expected = {
      {{"name", "expert_down"}, {"bits", {2.0, 2.0}}, {"error", {0.0, 12.5}}},
      {{"name", "expert_up"}, {"bits", {3.0, 1.0}}, {"error", {5.0, 15.0}}},
      {{"name", "o_proj"},
       {"bits", {4.0, nullptr}},
       {"error", {1.0, nullptr}}}};
  REQUIRE(data["roles"] == expected);
}

std::string page_of(
    const QuantResult& result,
    const std::string& title,
    const Json& quality = nullptr) {
  const testing::TemporaryFolder folder;
  write_report(
      folder.path() / "report.html",
      {.title = title, .result = result, .quality = quality});
  std::ifstream file(folder.path() / "report.html");
  return {
      std::istreambuf_iterator<char>(file), std::istreambuf_iterator<char>()};
}

TEST_CASE("A page says what weights take and what that costs") {
  const std::string page = page_of(sample_result(), "a <b> & c");
  REQUIRE_THAT(page, Contains("a &lt;b&gt; &amp; c"));
  REQUIRE_THAT(page, Contains("Led by 77 tokens"));
  // 1000 bytes for 1600 weights, a quarter of before.
  REQUIRE_THAT(page, Contains("25.0 % of them: 5.000 bits"));
  // expert_up: 8 x 100 / 400 bits, 12 of 120, and the counts.
  REQUIRE_THAT(
      page,
      Contains("<td>2.000</td><td>10 %</td><td>8</td><td>3</td><td>1</td>"));
  const std::string open = "id=\"data\">";
  const std::size_t begin = page.find(open) + open.size();
  REQUIRE(
      Json::parse(page.substr(begin, page.find("</script>", begin) - begin)) ==
      report_data(sample_result()));
}

TEST_CASE("A page shows the quality that was measured first") {
  const Json file{
      {"file", "held.jsonl"},
      {"tokens", 40},
      {"nll_before", 2.0},
      {"nll", 2.25},
      {"kl", 0.125},
      {"top1", 0.5}};
  Json quality = file;
  quality["files"] = {file};
  const std::string page = page_of(sample_result(), "tiny", quality);
  const std::size_t found = page.find("Quality on held-out text");
  REQUIRE(found < page.find("By kind of weight"));
  REQUIRE_THAT(page, Contains("<td>2.0000</td><td>2.2500</td>"));
  REQUIRE_THAT(
      page_of(sample_result(), "tiny"), !Contains("Quality on held-out text"));
}

TEST_CASE("A page maps the bits of experts, where roles differ by role") {
  QuantResult result = sample_result();
  REQUIRE(report_data(result)["expert_bits"] == Json::array());
  REQUIRE_THAT(page_of(result, "tiny"), !Contains("id=\"expert-role\""));
  // The first layer has no experts; of the third expert nothing is left.
  result.layers[2].expert_bits = {
      {"expert_gate", {4.125, 2.25, 0}},
      {"expert_up", {4.125, 2.25, 0}},
      {"expert_down", {8, 8, 0}}};
  const Json expected = Json::parse(R"([
      {"name": "expert_down", "bits": [[], [8, 8, 0]]},
      {"name": "expert_gate, expert_up", "bits": [[], [4.125, 2.25, 0]]}])");
  REQUIRE(report_data(result)["expert_bits"] == expected);
  REQUIRE_THAT(page_of(result, "tiny"), Contains("id=\"expert-role\""));
}

TEST_CASE("A page draws starved experts where there are any") {
  QuantResult result = sample_result();
  const std::string canvas = "<canvas id=\"starved\">";
  REQUIRE_THAT(page_of(result, "tiny"), Contains(canvas));
  for (LayerRecord& layer : result.layers) {
    for (auto& [name, role] : layer.roles) role.scarce = role.unseen = 0;
  }
  REQUIRE_THAT(page_of(result, "tiny"), !Contains(canvas));
}

TEST_CASE("A page of a quantization needs no network") {
  const std::string page = page_of(sample_result(), "tiny");
  REQUIRE_THAT(page, Contains("Chart.js v"));
  REQUIRE_THAT(page, Contains("@media print"));
  REQUIRE_THAT(page, !Contains("<link"));
  REQUIRE_THAT(page, !Contains("src="));
  REQUIRE_THAT(page, !Contains("@import"));
}

TEST_CASE("A page of nothing quantized is one all the same") {
  QuantResult result;
  result.layers.resize(1);
  REQUIRE(report_data(result)["roles"] == Json::array());
  REQUIRE_THAT(page_of(result, "tiny"), !Contains("nan"));
}

}  // namespace
}  // namespace fettle::quant
