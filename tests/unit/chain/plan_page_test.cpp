// SPDX-License-Identifier: Apache-2.0
#include "chain/plan_page.h"

#include <fmt/format.h>

#include <catch2/catch.hpp>

#include "../temporary_folder.h"
#include "chain/search.h"
#include "core/text_file.h"
#include "priced_model.h"

namespace fettle::chain {
namespace {

using Catch::Matchers::Contains;
using Catch::Matchers::StartsWith;

TEST_CASE("A plan's page has what was planned and what was measured") {
  const fettle::testing::TinyModel tiny(fettle::testing::small_model(2));
  const model::ModelReader reader(tiny.path());
  const PriceTable table = fettle::testing::priced_table(reader);
  const Search search(reader, table, {});
  const FitPlan chosen = search.within((search.least() + search.most()) / 2);
  Footprint footprint;
  footprint.weights[FitPart::kExperts] = 3 << 20;
  footprint.total = footprint.state = 1 << 20;
  const std::vector<FitPlan> frontier{chosen, search.within(search.most())};
  const std::vector<std::pair<PlainChoice, FitPlan>> plain{
      {{0.5, quant::parse_scheme("int4")}, chosen}};
  const TemporaryFolder out;
  PlanPage page{
      .model = "tiny",
      .engine = find_engine("fettle"),
      .table = table,
      .chosen = chosen,
      .footprint = footprint,
      .frontier = frontier,
      .plain = plain,
      .budget = chosen.bytes,
      .making = {"fettle fit x", {}}};
  write_plan_page(out / "plan.html", page);
  std::string html = read_text_file(out / "plan.html", "test");
  CHECK_THAT(html, Contains("50 % of the neurons at int4"));
  CHECK_THAT(html, Contains("not measured on this model"));
  CHECK_THAT(html, !Contains("Measured loss by file"));
  CHECK_THAT(html, !Contains("Expected loss by domain"));
  CHECK_THAT(html, Contains("\n<!doctype html>\n") || StartsWith("<!doctype"));

  page.measured = {{"/data/held_math.jsonl", 0.25}, {"held_code.jsonl", 0.75}};
  page.probes = {{&chosen, 0.125}};
  page.domains = {{"math", 3000, 3000}, {"code", 0, 0}};
  page.peak_bytes = 5 << 20;
  write_plan_page(out / "plan.html", page);
  html = read_text_file(out / "plan.html", "test");
  CHECK_THAT(html, Contains("held_math") && Contains("0.5000"));
  CHECK_THAT(html, Contains("took 5.00 MiB"));
  CHECK_THAT(html, Contains("Expected loss by domain"));
  CHECK_THAT(html, Contains("<th>math</th><th>code</th>"));
  const std::string math = fmt::format("{:.4f}", 3000 * chosen.nats());
  CHECK_THAT(html, Contains("<td>" + math + "</td><td>0.0000</td>"));
  CHECK_THAT(html, Contains("<td>0.2500</td><td>" + math + "</td>"));
  const Json data = plan_page_data(page);
  CHECK(data.at("finished")[0].at("y") == 0.5);
  CHECK(data.at("probes")[0].at("y") == 0.125);
  CHECK(data.at("frontier").size() == 2);
  REQUIRE(data.at("layers").size() == 2);
  double kept = 0;
  for (std::size_t e = 0; e < 2; ++e) {
    kept += static_cast<double>(chosen.experts[e].width) / 8;
  }
  CHECK(data.at("layers")[0].at("mean").get<double>() == Approx(kept));
  CHECK(data.at("parts")[0].at("mib") == 3.0);
}

}  // namespace
}  // namespace fettle::chain
