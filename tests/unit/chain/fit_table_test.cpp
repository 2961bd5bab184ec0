// SPDX-License-Identifier: Apache-2.0
#include "chain/fit_table.h"

#include <catch2/catch.hpp>

#include "core/error.h"
#include "planned_folder.h"

namespace fettle::chain {
namespace {

using Catch::Matchers::Contains;
using testing::PlannedFolder;

class FitOfPlanned {
 protected:
  FitTable table(FitRequest request) const {
    return fit_table(source, settled(std::move(request), source));
  }

  PlannedFolder folder{"qwen3_moe"};
  FitSource source{folder.path()};
};

FitRequest of_card(std::int64_t bytes) {
  FitRequest request;
  request.bounds.vram = bytes;
  return request;
}

TEST_CASE_METHOD(FitOfPlanned, "Without bounds every row is shown") {
  const FitTable all = table({});
  CHECK(all.request.context == 4096);
  CHECK(all.rows.size() == 4 * 6);
  for (const FitRow& row : all.rows) {
    CHECK(row.fits == Fits::kYes);
    CHECK(row.longest_context == 4096);
  }
  const Json json = all.to_json();
  CHECK(json.at("rows").size() == all.rows.size());
  CHECK(json.at("vram_bytes").is_null());
}

TEST_CASE_METHOD(FitOfPlanned, "Who unpacks when loading gains no memory") {
  FitRequest request;
  request.engine = "transformers";
  const FitTable all = table(request);
  const FitRow& stored = all.rows.front();
  CHECK(stored.footprint.widening() == 1);
  bool any = false;
  for (const FitRow& row : all.rows) {
    if (row.cut.keep < 1 || row.cut.scheme.scheme == stored.cut.scheme.scheme) {
      continue;
    }
    any = true;
    CHECK(row.footprint.file < stored.footprint.file);
    CHECK(row.footprint.total > stored.footprint.total);
    CHECK(row.footprint.widening() > 2);
  }
  CHECK(any);
}

TEST_CASE_METHOD(FitOfPlanned, "A row fits from its total on") {
  const FitRow row = table({}).rows[5];
  for (const std::int64_t spare : {0, -1}) {
    const FitRow found = table(of_card(row.footprint.total + spare)).rows[5];
    CHECK((found.fits == Fits::kYes) == (spare == 0));
    CHECK(found.left == spare);
  }
}

TEST_CASE_METHOD(FitOfPlanned, "The longest context is the longest that fits") {
  FitRequest request = of_card(0);
  request.engine = GENERATE("fettle", "llama.cpp");
  request.context = 512;
  const Engine& engine = find_engine(request.engine);
  const Candidate whole(source, engine, {1.0, engine.schemes[0]}, true);
  request.bounds.vram = whole.footprint(1500, 1).total;
  const FitRow row = table(request).rows[0];
  REQUIRE(row.cut.keep == 1.0);
  CHECK(row.longest_context >= 1500);
  CHECK(row.longest_context < 4096);
  const std::int64_t longest = row.longest_context;
  CHECK(whole.footprint(longest, 1).total <= *request.bounds.vram);
  CHECK(whole.footprint(longest + 1, 1).total > *request.bounds.vram);
}

TEST_CASE_METHOD(FitOfPlanned, "The least budget that is named would do") {
  const FitTable all = table({});
  const std::int64_t least = all.least.footprint.least;
  REQUIRE(least < all.smallest.footprint.total);
  const FitRow row = table(of_card(least)).least;
  CHECK(row.fits == Fits::kStreams);
  CHECK(row.read_bytes > 0);
  CHECK(row.read_bytes <= row.footprint.layers);
  REQUIRE_THROWS_WITH(
      table(of_card(least - 1)),
      Contains("[fit] --vram:") && Contains("the least is") &&
          Contains("% of the experts' neurons as ") &&
          Contains("conversations ") &&
          Contains("a layer and a prompt in it, or the head"));
  FitRequest request;
  request.engine = "llama.cpp";
  request.bounds.vram = table(request).smallest.footprint.total - 1;
  REQUIRE_THROWS_WITH(
      table(request), Contains("experts ") && Contains("working set"));
}

TEST_CASE_METHOD(FitOfPlanned, "Each bound is kept and named") {
  FitRequest request;
  SECTION("weights") {
    request.bounds.weights = 1000;
    REQUIRE_THROWS_WITH(
        table(request),
        Contains("--budget: 1000 B") && Contains("experts ") &&
            Contains("attention and mixers ") && Contains("embeddings ") &&
            !Contains("conversations"));
    request.bounds.weights = table({}).smallest.footprint.file;
    CHECK(table(request).smallest.fits == Fits::kYes);
  }
  SECTION("disk") {
    request.bounds.disk = 1000;
    REQUIRE_THROWS_WITH(
        table(request), Contains("--disk: 1000 B") && Contains(": experts "));
  }
  SECTION("RAM where the CPU computes") {
    request.bounds.ram = 1000;
    REQUIRE_THROWS_WITH(table(request), Contains("--ram: 1000 B"));
  }
  SECTION("RAM beside a card") {
    request = of_card(std::int64_t{1} << 40);
    request.bounds.ram = 1000;
    REQUIRE_THROWS_WITH(table(request), Contains("--ram: 1000 B"));
  }
}

TEST_CASE_METHOD(FitOfPlanned, "Experts of some layers may lie in RAM") {
  FitRequest request;
  request.engine = "llama.cpp";
  const FitRow whole = table(request).rows[0];
  REQUIRE(whole.footprint.layer_experts > 0);
  request.bounds.vram = whole.footprint.total - 1;
  request.bounds.ram = whole.footprint.ram + whole.footprint.layer_experts;
  const FitRow split = table(request).rows[0];
  CHECK(split.fits == Fits::kSplit);
  CHECK(split.moved_layers == 1);
  CHECK(split.left == 0);
  --*request.bounds.ram;
  CHECK(table(request).rows[0].fits == Fits::kNo);
}

TEST_CASE_METHOD(FitOfPlanned, "Shares and schemes are bounded from below") {
  FitRequest request;
  request.keep_min = 0.6;
  request.bits_min = "int4";
  const FitTable some = table(request);
  CHECK(some.rows.size() == 3 * 3);
  CHECK(some.rows.back().cut.keep == 0.6);
  CHECK(some.rows.back().cut.scheme.scheme == "int4");
  request.bits_min = "int5";
  REQUIRE_THROWS_WITH(table(request), Contains("--bits-min"));
}

TEST_CASE_METHOD(FitOfPlanned, "Requests that no model of these can meet") {
  FitRequest request;
  request.context = 4097;
  REQUIRE_THROWS_WITH(
      settled(request, source),
      Contains("--context: expected at most the model's 4096 positions"));
  request = {};
  request.engine = "vllm";
  request.bounds.ram = 1 << 30;
  REQUIRE_THROWS_WITH(settled(request, source), Contains("give --vram"));
}

TEST_CASE("Schemes that an engine has no place for are named") {
  const PlannedFolder folder("gpt_oss");
  const FitSource source(folder.path());
  FitRequest request;
  request.engine = "vllm";
  const FitTable table = fit_table(source, settled(request, source));
  CHECK(table.rows.size() == 4);
  REQUIRE(table.refused.size() == 2);
  CHECK(table.refused[0].label == "int8");
  CHECK(table.to_json().at("refused").size() == 2);
}

}  // namespace
}  // namespace fettle::chain
