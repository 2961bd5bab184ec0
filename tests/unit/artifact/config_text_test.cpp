// SPDX-License-Identifier: Apache-2.0
#include "artifact/config_text.h"

#include <catch2/catch.hpp>
#include <limits>

namespace fettle::artifact {
namespace {

TEST_CASE("What JSON has no number for is written as transformers does") {
  constexpr double kInfinity = std::numeric_limits<double>::infinity();
  const Json config{
      {"limits", {0.5, kInfinity}},
      {"part", {{"low", -kInfinity}, {"none", nullptr}, {"count", 3}}},
      {"nan", std::numeric_limits<double>::quiet_NaN()}};
  REQUIRE(
      parse_json(config_text(config), "test", "config") ==
      Json{
          {"limits", {0.5, Json{{"__float__", "Infinity"}}}},
          {"part",
           {{"low", Json{{"__float__", "-Infinity"}}},
            {"none", nullptr},
            {"count", 3}}},
          {"nan", Json{{"__float__", "NaN"}}}});
}

}  // namespace
}  // namespace fettle::artifact
