// SPDX-License-Identifier: Apache-2.0
#include "chain/weights_room.h"

#include <catch2/catch.hpp>

#include "chain/fit_table.h"
#include "core/error.h"
#include "planned_folder.h"
#include "sweep/plan.h"

namespace fettle::chain {
namespace {

using Catch::Matchers::Contains;

TEST_CASE("What keeps to the room for weights keeps to the bound") {
  const testing::PlannedFolder folder("qwen3_moe");
  const FitSource source(folder.path());
  FitRequest request;
  request.engine = GENERATE("fettle", "llama.cpp", "vllm");
  const bool on_card = request.engine != "llama.cpp";
  auto& bound = on_card ? request.bounds.vram : request.bounds.ram;
  bound = std::int64_t{1} << 40;
  const FitTable all = fit_table(source, settled(request, source));
  // The whole in int8 just fits.
  const auto whole = std::ranges::find_if(all.rows, [](const FitRow& row) {
    return row.cut.scheme.scheme == std::string_view("int8");
  });
  REQUIRE(whole->cut.keep == 1.0);
  bound = whole->footprint.total;
  const std::int64_t room = weights_room(source, settled(request, source));
  CHECK(room > 0);
  CHECK(room <= whole->footprint.file);
  bool any = false;
  for (const FitRow& row : fit_table(source, settled(request, source)).rows) {
    if (row.cut.scheme.scheme == std::string_view("keep")) continue;
    INFO(request.engine << " " << row.cut.scheme.label << row.cut.keep);
    if (row.footprint.file > room) continue;
    any = true;
    CHECK(row.footprint.total <= *bound);
  }
  CHECK(any);
}

TEST_CASE("Memory bounds a model that a program can only have cut") {
  const testing::PlannedFolder folder("granitemoe");
  const FitSource source(folder.path());
  FitRequest request;
  request.engine = "transformers";
  request.bounds.ram = std::int64_t{8} << 30;
  const std::int64_t room = weights_room(source, settled(request, source));
  CHECK(room > 0);
  CHECK(room < *request.bounds.ram);
}

TEST_CASE("Fettle's plans leave the share unused that its row tells") {
  const double usable = find_engine("fettle").work.usable;
  const std::int64_t bytes = std::int64_t{1} << 40;
  const auto budget = static_cast<double>(sweep::budget_for(bytes));
  CHECK(static_cast<double>(bytes) / budget == Approx(usable).epsilon(1e-5));
}

TEST_CASE("Bounds of bytes on disk are room as they are") {
  const testing::PlannedFolder folder("qwen3_moe");
  const FitSource source(folder.path());
  FitRequest request;
  request.bounds.weights = 5000;
  CHECK(weights_room(source, settled(request, source)) == 5000);
  request.bounds.disk = 4000;
  CHECK(weights_room(source, settled(request, source)) == 4000);
  request.bounds.vram = 1;
  CHECK(weights_room(source, settled(request, source)) == 0);
  REQUIRE_THROWS_WITH(
      weights_room(source, settled({}, source)), Contains("expected a bound"));
}

}  // namespace
}  // namespace fettle::chain
