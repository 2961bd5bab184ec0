// SPDX-License-Identifier: Apache-2.0
#include "core/json.h"

#include <catch2/catch.hpp>

#include "core/error.h"

using Catch::Contains;
using fettle::Json;
using fettle::JsonObject;
using fettle::parse_json;
using fettle::UserError;

TEST_CASE("JSON that no honest file holds is refused in one line") {
  const std::string deep = std::string(10000, '[') + std::string(10000, ']');
  CHECK_THROWS_WITH(parse_json(deep, "config", "f"), Contains("nested deeper"));
  CHECK_THROWS_WITH(
      parse_json(std::string(10000, '['), "config", "f"),
      Contains("nested deeper"));
  CHECK_THROWS_WITH(
      parse_json(R"({"a":1,"b":{"a":2},"a":3})", "config", "f"),
      Contains("duplicate JSON key 'a'"));
  CHECK_NOTHROW(parse_json(R"({"a":1,"b":{"a":2},"c":[{"a":3}]})", "c", "f"));
  CHECK_THROWS_AS(parse_json("{", "config", "f"), UserError);
  CHECK_THROWS_AS(parse_json("{\n\n]", "config", "f"), UserError);
  try {
    parse_json("{\n\n]", "config", "f");
  } catch (const UserError& error) {
    CHECK(std::string(error.what()).find('\n') == std::string::npos);
  }
  CHECK_THROWS_AS(fettle::read_json("/nonexistent", "config"), UserError);
}

TEST_CASE("getters name the key and both types") {
  const Json json = parse_json(
      R"({"n":3,"x":1.5,"s":"t","b":true,"z":null,"big":18446744073709551615})",
      "config",
      "f");
  const JsonObject object(json, "config", "f");
  CHECK(object.integer("n") == 3);
  CHECK(object.number("x") == 1.5);
  CHECK(object.number("n") == 3.0);
  CHECK(object.string("s") == "t");
  CHECK(object.boolean("b"));
  CHECK(object.integer_or("z", 7) == 7);
  CHECK(object.integer_or("none", 7) == 7);
  CHECK_THROWS_WITH(object.integer("x"), Contains("'x' must be an integer"));
  CHECK_THROWS_WITH(object.integer("big"), Contains("larger than"));
  CHECK_THROWS_WITH(object.boolean("n"), Contains("found number"));
  CHECK_THROWS_WITH(object.string("none"), Contains("is missing"));
  CHECK_THROWS_AS(object.object("n"), UserError);
}
