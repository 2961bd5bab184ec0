// SPDX-License-Identifier: Apache-2.0
#include "quant/scheme.h"

#include <catch2/catch.hpp>
#include <set>

#include "calibration.h"
#include "core/error.h"

namespace fettle::quant {
namespace {

using Catch::Matchers::Contains;
using kernels::PackedKind;
using model::Role;

TEST_CASE("Schemes go by their names") {
  REQUIRE(scheme_names().size() == 7);
  for (const std::string& name : scheme_names()) {
    REQUIRE(scheme_name(parse_scheme(name)) == name);
  }
  REQUIRE((parse_scheme("int3") == Scheme{false, PackedKind::kInt, 3, false}));
  REQUIRE(parse_scheme("keep").keep);
  REQUIRE(parse_scheme("ternary-coded").coded);
  for (const char* name : {"int5", "", "INT4", "ternary-"}) {
    REQUIRE_THROWS_AS(parse_scheme(name), UserError);
    REQUIRE_THROWS_WITH(
        parse_scheme(name), Contains("int8, int4") && Contains("keep"));
  }
  REQUIRE_THROWS_AS(
      scheme_name({false, PackedKind::kInt, 5, false}), InternalError);
}

TEST_CASE("Every matrix is in one part, and nothing else is") {
  std::set<std::string> parts;
  for (const char* family : {"qwen2_moe", "deepseek_v2"}) {
    const model::ModelConfig config =
        tiny_config(testing::sample_options(family));
    for (const model::WeightId& id : model::model_weights(config)) {
      CAPTURE(model::role_name(id.role));
      const bool matrix = model::weight_shape(config, id).size() == 2 &&
                          id.role != Role::kRouter &&
                          id.role != Role::kSharedRouter;
      const std::optional<Part> part = part_of(id.role);
      REQUIRE(part.has_value() == matrix);
      if (part) parts.insert(std::string(part_name(*part)));
    }
  }
  REQUIRE(
      parts == std::set<std::string>{
                   "experts",
                   "down",
                   "shared",
                   "dense",
                   "attention",
                   "embeddings",
                   "head"});
  REQUIRE(part_of(Role::kExpertDown) == Part::kDown);
  REQUIRE(part_of(Role::kSharedDown) == Part::kShared);
  REQUIRE(part_of(Role::kKvBProj) == Part::kAttention);
}

TEST_CASE("A grid's group is of the row, and never longer") {
  const Scheme int4 = parse_scheme("int4");
  const auto group_of = [&](std::int64_t group, std::int64_t cols) {
    return grid_of(int4, {.group = group}, cols).group;
  };
  REQUIRE(group_of(128, 1408) == 128);
  REQUIRE(group_of(128, 40) == 40);
  REQUIRE(group_of(0, 1408) == 1408);
  REQUIRE(group_of(INT64_MAX, 40) == 40);
  // Of rows without weights: a group has to be something.
  REQUIRE(group_of(0, 0) == 1);
  REQUIRE(group_of(128, 0) == 1);
}

TEST_CASE("Few levels have zero points, unless that is said") {
  const auto symmetric = [](const char* name, std::optional<bool> said) {
    return grid_of(parse_scheme(name), {.symmetric = said}, 64).symmetric;
  };
  REQUIRE(symmetric("int8", {}));
  REQUIRE(symmetric("int4", {}));
  REQUIRE_FALSE(symmetric("int3", {}));
  REQUIRE_FALSE(symmetric("int2", {}));
  REQUIRE(symmetric("ternary", {}));
  REQUIRE_FALSE(symmetric("int8", false));
  REQUIRE(symmetric("int2", true));
  REQUIRE(GridOptions{}.to_json()["symmetric"] == "auto");
  REQUIRE(GridOptions{.symmetric = false}.to_json()["symmetric"] == false);
  REQUIRE_THROWS_AS(grid_of(parse_scheme("keep"), {}, 64), InternalError);
}

}  // namespace
}  // namespace fettle::quant
