// SPDX-License-Identifier: Apache-2.0
#include "core/json.h"

#include <catch2/catch.hpp>
#include <cmath>
#include <limits>

#include "core/error.h"
#include "core/json_text.h"

using Catch::Contains;
using fettle::Json;
using fettle::JsonObject;
using fettle::parse_json;
using fettle::shown;
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

namespace {

std::string json_error(std::string_view text) {
  try {
    parse_json(text, "config", "f");
  } catch (const UserError& error) {
    return error.what();
  }
  return "";
}

}  // namespace

TEST_CASE("what is wrong in a text is told by line and column") {
  CHECK(
      json_error("{\"a\": 1,\n \"b\": x}") ==
      "[config] f: not valid JSON at line 2, column 7: invalid literal");
  CHECK(
      json_error("{]") ==
      "[config] f: not valid JSON at column 2: unexpected ']'; expected string "
      "literal");
  // Columns are characters, not bytes.
  CHECK_THAT(json_error("{\"\u00e9\u00e9\": ]"), Contains("at column 8:"));
  CHECK_THAT(json_error("{\"a\": [1, 2"), Contains("it ends too early, at"));
  CHECK_THAT(json_error("{\"a\": \"b"), Contains("ends too early"));
  CHECK_THAT(json_error(" \n"), Contains("nothing is in it"));
  CHECK_THAT(json_error(""), Contains("nothing is in it"));
  CHECK_THAT(
      json_error("version https://git-lfs.github.com/spec/v1\noid sha256:0\n"),
      Contains("a Git LFS pointer"));
  CHECK_THAT(json_error("<!DOCTYPE html>"), Contains("a web page"));
  // What was read may be a long text: it is not repeated.
  CHECK(json_error("[\"" + std::string(100000, 'x')).size() < 200);
  for (const char* text :
       {"{]", "{\"a\" 1}", "[1,]", "nul", "1 2", "\"\xff\""}) {
    CHECK_THAT(json_error(text), Contains("not valid JSON"));
    CHECK_THAT(json_error(text), !Contains("json.exception"));
  }
}

TEST_CASE("numbers that only Python's JSON has are read, not used") {
  const Json json = parse_json(
      R"({"a": NaN, "b": [Infinity, -Infinity, 1e999, -1e999, 0.0e01], )"
      R"("c": "NaN", "d": 123456789012345678901234567890})",
      "config",
      "f");
  CHECK(std::isnan(json["a"].get<double>()));
  const double infinity = std::numeric_limits<double>::infinity();
  CHECK(json["b"] == Json({infinity, -infinity, infinity, -infinity, 0.0}));
  CHECK(json["c"] == "NaN");
  const JsonObject object(json, "config", "f");
  CHECK_THROWS_WITH(
      object.number("a"), Contains("'a' is NaN, expected a finite number"));
  CHECK_THROWS_WITH(object.integer("a"), Contains("'a' must be an integer"));
  CHECK_THROWS_WITH(object.integer("d"), Contains("larger than any count"));
  CHECK(std::isinf(parse_json("1e400", "c", "f").get<double>()));
  CHECK(shown(json["b"][1]) == "-Infinity");

  for (const char* text :
       {"1NaN", "NaN1", "[NaNx]", "Infinit", "-NaN", "{NaN: 1}", "[1 NaN]"}) {
    CHECK_THROWS_WITH(parse_json(text, "c", "f"), Contains("not valid JSON"));
  }
  // The place told is that of the text as it came.
  CHECK_THAT(json_error("[NaN, NaN, ]"), Contains("at column 12:"));
}

TEST_CASE("a byte order mark before JSON is passed over") {
  CHECK(parse_json("\xef\xbb\xbf{\"a\": 1}", "c", "f")["a"] == 1);
}

TEST_CASE("trees are as the library builds them") {
  for (
      const char* text :
      {"null",
       "[]",
       "{}",
       R"([1, -2, 3.5, "x", true, null, [[]], {"a": {"b": [0]}, "c": []}])",
       R"({"z": {"y": {"x": [{}, {"w": 18446744073709551615}]}}, "a": false})"}) {
    CHECK(parse_json(text, "c", "f") == Json::parse(text));
  }
  const std::string deep(fettle::kMaxJsonDepth, '[');
  const std::string end(fettle::kMaxJsonDepth, ']');
  CHECK_NOTHROW(parse_json(deep + end, "c", "f"));
  CHECK_THROWS_WITH(
      parse_json("[" + deep + end + "]", "c", "f"), Contains("nested deeper"));
}
