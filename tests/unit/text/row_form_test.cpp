// SPDX-License-Identifier: Apache-2.0
#include "text/row_form.h"

#include <catch2/catch.hpp>

#include "core/error.h"
#include "text/raw_json.h"

using Catch::Contains;
using namespace fettle;
using namespace fettle::text;

namespace {

std::string with_columns(const std::string& row, const std::string& columns) {
  return mapped_row(row, {NamedForm::kOwn, parse_columns(columns)}, "d:1");
}

std::string with_form(const std::string& row, const std::string& form) {
  return mapped_row(row, {parse_named_form(form), {}}, "d:1");
}

}  // namespace

TEST_CASE("values of a JSON text are found as they were written") {
  const std::string row =
      R"( {"b" : 1.50, "a\"": [ {"x": "]"}, 2], "c":null} )";
  const auto members = json_members(row);
  REQUIRE(members.size() == 3);
  CHECK(members[0].key == "b");
  CHECK(members[0].value == "1.50");
  CHECK(members[1].key == "a\"");
  CHECK(members[1].value == R"([ {"x": "]"}, 2])");
  CHECK(members[2].value == "null");
  const auto items = json_items(members[1].value);
  REQUIRE(items.size() == 2);
  CHECK(items[0] == R"({"x": "]"})");
  CHECK(items[1] == "2");
  CHECK(json_items("[ ]").empty());
  CHECK(json_members("{}").empty());
  CHECK(json_value_end("{\"a\": [1}", 0) == std::string::npos);
  CHECK(json_value_end("\"a\\\"", 0) == std::string::npos);
  CHECK(
      json_object_text({{"a\"", "1.50"}, {"b", "[]"}}) ==
      R"({"a\"": 1.50, "b": []})");
}

TEST_CASE("columns stand for the keys of a form") {
  CHECK(
      with_columns(
          R"({"question": "q", "answer": "a", "id": 12345678901234567890123})",
          "prompt=question,completion=answer") ==
      R"({"prompt": "q", "completion": "a", "question": "q", "answer": "a", )"
      R"("id": 12345678901234567890123})");
  // Other forms' keys are left out, so that one form remains.
  CHECK(
      with_columns(R"({"text": "t", "messages": []})", "text=text") ==
      R"({"text": "t"})");
  CHECK(with_columns(
            R"({"instruction": "i", "input": "", "output": "o"})",
            "prompt=instruction+input,completion=output")
            .starts_with(R"({"prompt": "i", "completion": "o")"));
  CHECK(with_columns(R"({"a": "x", "b": "y"})", "text=a+b")
            .starts_with(R"({"text": "x\ny")"));
  CHECK(with_columns(R"({"text": "t"})", "text=body") == R"({"text": "t"})");
  CHECK_THROWS_WITH(
      with_columns(R"({"q": "x"})", "prompt=q,completion=a"),
      Contains("d:1") && Contains("the column 'a' for completion"));
  CHECK_THROWS_WITH(
      with_columns(R"({"a": 1, "b": "x"})", "text=a+b"),
      Contains("'a' must be a string"));
  for (const char* columns : {"text", "text=", "=a", "body=text", "text=a,b"}) {
    CHECK_THROWS_AS(parse_columns(columns), UsageError);
  }
}

TEST_CASE("ShareGPT's conversations") {
  CHECK(
      with_form(
          R"({"id": 7, "system": "s", "conversations": [)"
          R"({"from": "human", "value": "h\u00e9"}, )"
          R"({"from": "gpt", "value": "g", "weight": 0}]})",
          "sharegpt") ==
      R"({"messages": [{"role": "system", "content": "s"}, )"
      R"({"role": "user", "content": "h\u00e9"}, )"
      R"({"role": "assistant", "content": "g", "weight": 0}], "id": 7})");
  CHECK(with_form(R"({"text": "t"})", "sharegpt") == R"({"text": "t"})");
  const auto refused = [](const char* list) {
    return with_form(
        std::string(R"({"conversations": )") + list + "}", "sharegpt");
  };
  CHECK_THROWS_WITH(
      refused(R"([{"from": "function_call", "value": "x"}])"),
      Contains("found 'function_call'"));
  CHECK_THROWS_WITH(refused(R"([{"value": "x"}])"), Contains("no 'from'"));
  CHECK_THROWS_WITH(refused("[1]"), Contains("list of objects"));
  CHECK_THROWS_WITH(refused("1"), Contains("must be a list"));
  CHECK_THROWS_AS(parse_named_form("chatml"), UsageError);
}

TEST_CASE("alpaca's instructions") {
  CHECK(
      with_form(
          R"({"instruction": "i", "input": "x", "output": "o", "n": 1.0})",
          "alpaca") == R"({"messages": [{"role": "user", "content": "i\nx"}, )"
                       R"({"role": "assistant", "content": "o"}], "n": 1.0})");
  CHECK(
      with_form(
          R"({"system": "s", "instruction": "i", "history": [], "output": "o"})",
          "alpaca")
          .starts_with(R"({"messages": [{"role": "system", "content": "s"}, )"
                       R"({"role": "user", "content": "i"})"));
  CHECK_THROWS_WITH(
      with_form(
          R"({"instruction": "i", "output": "o", "history": [["a", "b"]]})",
          "alpaca"),
      Contains("'history' of alpaca is not read"));
}

TEST_CASE("a prompt and a completion of messages are one conversation") {
  CHECK(
      conversation_row(
          R"({"prompt": [{"role": "user", "content": "a"}, )"
          R"({"role": "assistant", "content": "b", "weight": 1}], )"
          R"("completion": [{"role": "assistant", "content": "c"}], )"
          R"("tools": [1.0]})",
          "d:1") ==
      R"({"messages": [{"role": "user", "content": "a"}, )"
      R"({"role": "assistant", "content": "b", "train": false}, )"
      R"({"role": "assistant", "content": "c"}], "tools": [1.0]})");
  CHECK_THROWS_WITH(
      conversation_row(R"({"prompt": [], "completion": "c"})", "d:1"),
      Contains("both as strings or both as lists"));
  CHECK_THROWS_WITH(
      conversation_row(R"({"prompt": [1], "completion": []})", "d:1"),
      Contains("'prompt' must be a list of messages"));
}

TEST_CASE("a row of another form is told how to be read") {
  const auto advises = [](const std::string& row, const std::string& option) {
    CHECK_THAT(form_advice(row), Contains(option));
  };
  advises(
      R"({"question": "a", "answer": "b"})",
      "question, answer; add --columns prompt=question,completion=answer");
  advises(
      R"({"prompt": "a", "response": "b"})",
      "prompt=prompt,completion=response");
  advises(
      R"({"conversations": [{"from": "human", "value": "a"}]})",
      "--form sharegpt");
  advises(
      R"({"dialog": [{"role": "user", "content": "a"}]})",
      "--columns messages=dialog");
  advises(R"({"instruction": "a", "output": "b"})", "--form alpaca");
  advises(R"({"content": "a"})", "--columns text=content");
  advises(R"({"text": "a", "messages": []})", "choose one");
  advises(R"({"data": [{"x": 1}]})", "jq -c '.data[]'");
  advises(R"({"x": 1, "y": null})", "x; name the columns");
  advises("{}", "no columns");
}
