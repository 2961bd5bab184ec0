// SPDX-License-Identifier: Apache-2.0
#include "chain/tune_table.h"

#include <catch2/catch.hpp>

#include "chain/fit_table.h"
#include "core/error.h"
#include "planned_folder.h"
#include "tune/method/method.h"
#include "tune/run_plan.h"

namespace fettle::chain {
namespace {

using Catch::Matchers::Contains;
using testing::PlannedFolder;

class TuneOfPlanned {
 protected:
  TuneTable table(FitRequest request) const {
    request.purpose = Purpose::kTune;
    return tune_table(source, settled(request, source), rates);
  }

  PlannedFolder folder{"qwen3_moe"};
  FitSource source{folder.path()};
  Rates rates{.products = 1e12, .read = 1e9};
};

TEST_CASE_METHOD(TuneOfPlanned, "Every method has a plan, full on plain ones") {
  const TuneTable all = table({});
  CHECK(all.rows.size() == 3 * tune::methods().size() - 2);
  for (const TuneRow& row : all.rows) {
    CHECK(row.fits);
    CHECK(row.vram > 0);
    CHECK(row.seconds > 0);
  }
  CHECK(all.to_json().at("rows").size() == all.rows.size());
}

TEST_CASE_METHOD(TuneOfPlanned, "A method fits from its least memory on") {
  const bool card = GENERATE(false, true);
  FitRequest request;
  auto& bound = card ? request.bounds.vram : request.bounds.ram;
  bound = std::int64_t{1} << 40;
  const TuneRow first = table(request).rows[0];
  bound = card ? first.vram : first.ram;
  CHECK(table(request).rows[0].fits);
  CHECK(table(request).rows[0].left == 0);
  --*bound;
  CHECK_FALSE(table(request).rows[0].fits);
}

TEST_CASE_METHOD(TuneOfPlanned, "A step's time is that of the slower part") {
  const TuneRow products = table({}).rows[0];
  rates.products /= 2;
  CHECK(table({}).rows[0].seconds == Approx(2 * products.seconds));
  rates.read = 1.0;  // bytes a second
  FitRequest request;
  request.bounds.ram = std::int64_t{1} << 40;
  request.bounds.ram = table(request).rows[0].ram;
  const TuneRow slow = table(request).rows[0];
  REQUIRE(slow.read_bytes > 0);
  CHECK(
      slow.seconds ==
      Approx(static_cast<double>(slow.read_bytes + slow.written_bytes)));
}

TEST_CASE_METHOD(TuneOfPlanned, "Budgets below all methods are refused") {
  FitRequest request;
  request.bounds.ram = 1000;
  REQUIRE_THROWS_WITH(
      table(request), Contains("--ram: 1000 B is too little to tune"));
  request = {};
  request.bounds.vram = 1000;
  REQUIRE_THROWS_WITH(table(request), Contains("--vram: 1000 B"));
  request = {};
  request.bounds.disk = 0;
  REQUIRE_THROWS_WITH(table(request), Contains("--disk: 0 B"));
  request = {};
  request.engine = "llama.cpp";
  REQUIRE_THROWS_WITH(table(request), Contains("no program that tunes"));
}

TEST_CASE("Rates are measured or said to be assumed") {
  const Rates here = measure_rates(at::kCPU, at::kFloat, {});
  CHECK(here.products > 0);
  CHECK_THAT(here.text(), Contains("measured") && Contains("disk assumed"));
  CHECK_THAT(assumed_rates({}).text(), Contains("TFLOP/s assumed"));
}

}  // namespace
}  // namespace fettle::chain
