// SPDX-License-Identifier: Apache-2.0
#include "chain/fit_page.h"

#include <catch2/catch.hpp>

#include "core/text_file.h"
#include "planned_folder.h"

namespace fettle::chain {
namespace {

using Catch::Matchers::Contains;

TEST_CASE("Bars of a row are its total") {
  const testing::PlannedFolder folder("qwen3_moe");
  const FitSource source(folder.path());
  FitRequest request;
  request.bounds.vram = std::int64_t{1} << 30;
  const FitTable table = fit_table(source, settled(request, source));
  const Json data = fit_page_data(table);
  CHECK(data.at("bound") == 1.0);
  REQUIRE(data.at("rows").size() == table.rows.size());
  CHECK(data.at("rows")[1] == "75 % as stored");
  for (std::size_t r = 0; r < table.rows.size(); ++r) {
    double sum = 0;
    for (const Json& part : data.at("parts")) {
      sum += part.at("bytes")[r].get<double>();
    }
    CHECK(sum * (1 << 30) == Approx(table.rows[r].footprint.total));
  }
  // No part that the model lacks.
  for (const Json& part : data.at("parts")) {
    CHECK(part.at("name") != "shared experts");
  }
}

TEST_CASE("The page says what it rests on") {
  const testing::PlannedFolder folder("gpt_oss");
  const FitSource source(folder.path());
  FitRequest request;
  request.engine = "vllm";
  const FitTable table = fit_table(source, settled(request, source));
  CHECK(fit_page_data(table).at("bound").is_null());
  const TemporaryFolder out;
  write_fit_page(out / "fit.html", {source, table, {"fettle fit x", {}}});
  const std::string html = read_text_file(out / "fit.html", "test");
  CHECK_THAT(html, Contains("In vllm") && Contains("Assumed: no int8"));
  CHECK_THAT(html, Contains("Exact: shapes") && Contains("fettle fit x"));
}

}  // namespace
}  // namespace fettle::chain
