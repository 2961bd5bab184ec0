// SPDX-License-Identifier: Apache-2.0
#include "model/weights/weight_values.h"

#include <catch2/catch.hpp>
#include <limits>

#include "model_folder.h"
#include "sample_config.h"

using Catch::Contains;
using namespace fettle::model;
using fettle::model::testing::ModelFolder;
using fettle::model::testing::sample;

namespace {

const std::string kQuery = "model.layers.0.self_attn.q_proj.weight";

WeightValues values_of(const ModelReader& reader) {
  std::int64_t seen = 0;
  const WeightValues values =
      scan_values(reader, [&](std::int64_t numel) { seen += numel; });
  CHECK(seen == reader.config().parameters());
  return values;
}

}  // namespace

TEST_CASE("values that are not finite and weights of zeros are found") {
  ModelFolder folder(sample("olmoe"));
  {
    const ModelReader reader(folder.write());
    const WeightValues values = values_of(reader);
    CHECK(values.not_finite.empty());
    CHECK(values.zero.empty());
    CHECK_NOTHROW(check_values(values, reader));
  }
  folder["model.norm.weight"].zero_();
  folder[kQuery][1][2] = std::numeric_limits<float>::quiet_NaN();
  folder[kQuery][0][0] = -std::numeric_limits<float>::infinity();
  folder["lm_head.weight"] = folder["lm_head.weight"].to(at::kBFloat16);
  folder["lm_head.weight"][0][0] = std::numeric_limits<float>::infinity();
  const ModelReader reader(folder.write());
  const WeightValues values = values_of(reader);
  CHECK(values.zero == std::vector<std::string>{"model.norm.weight"});
  REQUIRE(values.not_finite.size() == 2);
  CHECK(values.not_finite[0].name == kQuery);
  CHECK(values.not_finite[0].count == 2);
  CHECK_THROWS_WITH(
      check_values(values, reader),
      Contains(kQuery + ": holds 2 values") && Contains("as do 1 other"));
}

TEST_CASE("a model of zeros alone is no model") {
  ModelFolder folder(sample("olmoe"));
  folder.zero();
  const ModelReader reader(folder.write());
  CHECK_THROWS_WITH(
      check_values(values_of(reader), reader), Contains("all weights are 0"));
}
