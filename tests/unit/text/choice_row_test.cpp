// SPDX-License-Identifier: Apache-2.0
#include "text/choice_row.h"

#include <catch2/catch.hpp>

#include "core/error.h"

using Catch::Contains;
using namespace fettle;
using namespace fettle::text;

namespace {

ChoiceRow read(const std::string& row) {
  const Json json = Json::parse(row);
  return read_choice_row(JsonObject(json, "choices", "q.jsonl:3"));
}

std::string refusal(const std::string& row) {
  try {
    read(row);
  } catch (const UserError& error) {
    return error.what();
  }
  return "read";
}

// A row of Fettle's own form with this answer.
std::string answered(const std::string& answer) {
  return R"({"context": "c", "choices": ["x", "y", "z"], "answer": )" + answer +
         "}";
}

}  // namespace

TEST_CASE("a row in Fettle's own form is asked as it is") {
  const ChoiceRow row =
      read(R"({"context": " c ", "choices": ["x", " y"], "answer": 1})");
  CHECK(row.choices.size() == 2);
  CHECK(row.choices[0].context == " c ");
  CHECK(row.choices[0].continuation == " x");
  CHECK(row.choices[1].continuation == "  y");
  CHECK(row.choices[1].text == " y");
  CHECK(row.answer == 1);
  CHECK(row.description.empty());
  const ChoiceRow close = read(
      R"({"context": "", "choices": ["x", "y"], "answer": 0, "delimiter": ""})");
  CHECK(close.choices[0].continuation == "x");
}

TEST_CASE("an answer is a place, a letter or a choice's text") {
  CHECK(read(answered("2")).answer == 2);
  CHECK(read(answered("\"2\"")).answer == 2);
  CHECK(read(answered("\"C\"")).answer == 2);
  CHECK(read(answered("\"y\"")).answer == 1);
  CHECK(read(answered("true")).answer == 1);
  CHECK_THAT(refusal(answered("3")), Contains("must name one of 3 choices"));
  CHECK_THAT(refusal(answered("-1")), Contains("without answers"));
  CHECK_THAT(refusal(answered("\"9\"")), Contains("found 9"));
  CHECK_THAT(refusal(answered("\"w\"")), Contains("found 'w'"));
}

TEST_CASE("a question without a form of its own is asked as ARC's") {
  const ChoiceRow row =
      read(R"({"question": "q?", "choices": ["x", "y"], "answer": "y"})");
  CHECK(row.choices[0].context == "Question: q?\nAnswer:");
  CHECK(row.answer == 1);
}

TEST_CASE("what WikiHow left in a text of HellaSwag goes out") {
  const ChoiceRow row = read(R"({"activity_label": "A", "ctx_a": "b [title] c",
      "ctx_b": "ÉLAN", "label": "0",
      "endings": ["[step] x [y\nz]  w", "v [open"]})");
  CHECK(row.choices[0].context == "A: b. c Élan");
  CHECK(row.choices[0].text == " x [y\nz] w");
  CHECK(row.choices[1].text == "v [open");
}

TEST_CASE("rows that can't be asked are refused") {
  CHECK_THAT(
      refusal(R"({"text": "t", "id": 3})"),
      Contains("q.jsonl:3") && Contains("found id, text"));
  CHECK_THAT(
      refusal(R"({"context": "c", "choices": ["x"], "answer": 0})"),
      Contains("two or more"));
  CHECK_THAT(
      refusal(R"({"context": "c", "choices": ["x", ""], "answer": 0})"),
      Contains("an empty one"));
  CHECK_THAT(
      refusal(R"({"context": "c", "choices": "xy", "answer": 0})"),
      Contains("list of strings"));
  CHECK_THAT(
      refusal(R"({"context": "c", "choices": [1, 2], "answer": 0})"),
      Contains("list of strings"));
  CHECK_THAT(
      refusal(R"({"sentence": "no gap", "option1": "a", "option2": "b",
                  "answer": "1"})"),
      Contains("must have a gap"));
}
