// SPDX-License-Identifier: Apache-2.0
#include "core/json_members.h"

#include <catch2/catch.hpp>
#include <utility>
#include <vector>

#include "core/error.h"

using Catch::Contains;
using fettle::Json;
using fettle::parse_json_members;

namespace {

using Members = std::vector<std::pair<std::string, Json>>;

struct Read {
  Members members;
  Json rest;
};

Read read(std::string_view text, std::string_view object = {}) {
  Read result;
  result.rest = parse_json_members(
      text, {"stage", "file", object}, [&](std::string& key, Json& value) {
        result.members.emplace_back(std::move(key), std::move(value));
      });
  return result;
}

}  // namespace

TEST_CASE("the root's members come one by one, in the text's order") {
  const Read all = read(R"({"b": {"x": [1, {"y": 2}]}, "a": 3, "c": [{}]})");
  CHECK(
      all.members == Members{
                         {"b", {{"x", {1, {{"y", 2}}}}}},
                         {"a", 3},
                         {"c", Json::array({Json::object()})}});
  CHECK(all.rest == Json::object());
}

TEST_CASE("the members of one object of the root are taken, the rest stays") {
  const char* text =
      R"({"m": {"n": 1}, "map": {"p": "q", "map": {"r": 0}}, "z": [{"map": 2}]})";
  const Read some = read(text, "map");
  CHECK(some.members == Members{{"p", "q"}, {"map", {{"r", 0}}}});
  CHECK(
      some.rest ==
      Json::parse(R"({"m": {"n": 1}, "map": {}, "z": [{"map": 2}]})"));
  CHECK(read(R"({"map": 3})", "map").rest["map"] == 3);
  CHECK(read(R"([{"map": {"a": 1}}])", "map").members.empty());
  CHECK(read("[1]").rest == Json({1}));
}

TEST_CASE("keys that come twice come twice, elsewhere they are refused") {
  CHECK(read(R"({"a": 1, "a": 2})").members == Members{{"a", 1}, {"a", 2}});
  CHECK_THROWS_WITH(
      read(R"({"a": {"b": 1, "b": 2}})"), Contains("duplicate JSON key 'b'"));
  CHECK_THROWS_WITH(
      read(R"({"map": {}, "map": {}})", "map"),
      Contains("duplicate JSON key 'map'"));
  CHECK_THROWS_WITH(read(R"({"a": 1)"), Contains("[stage] file: not valid"));
  CHECK_THROWS_WITH(read(R"({"a": NaN})"), Contains("not valid JSON"));
}
