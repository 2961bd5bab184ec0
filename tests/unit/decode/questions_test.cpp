// SPDX-License-Identifier: Apache-2.0
#include "decode/questions.h"

#include <catch2/catch.hpp>

#include "../temporary_folder.h"
#include "core/error.h"

using Catch::Contains;
using namespace fettle;
using namespace fettle::decode;

namespace {

Question question_of(const std::string& row) {
  const Json json = Json::parse(row);
  return read_question(JsonObject(json, "questions", "q.jsonl:3"));
}

}  // namespace

TEST_CASE("questions are read by their keys") {
  const Question own = question_of(R"({"prompt": "p", "completion": "c"})");
  CHECK(own.prompt + "|" + own.solution == "p|c");
  const Question answer = question_of(R"({"prompt": "p", "answer": "a"})");
  CHECK(answer.prompt + "|" + answer.solution == "p| a");
  const Question gsm8k = question_of(R"({"question": "q", "answer": "a"})");
  CHECK(gsm8k.prompt == "Question: q\nAnswer:");
  CHECK(gsm8k.stops == std::vector<std::string>{"Question:"});
  CHECK(shots_text({gsm8k, own}) == "Question: q\nAnswer: a\n\npc\n\n");
  CHECK_THROWS_WITH(question_of(R"({"text": "t"})"), Contains("found text"));
}

TEST_CASE("a file without a question is refused") {
  const TemporaryFolder folder;
  CHECK_THROWS_WITH(
      read_questions(folder.write("q.jsonl", "\n")),
      Contains("holds no question"));
  CHECK(
      read_questions(
          folder.write("r.jsonl", R"({"prompt": "p", "answer": ""})"))
          .questions.size() == 1);
}

TEST_CASE("an answer is what the pattern's group matches") {
  const std::string text = "It is 7.\n#### $1,234. Then #### 5";
  const AnswerFinder first({R"(#### (\S+))"});
  CHECK(first.find(text) == "1234");
  CHECK(AnswerFinder({R"(#### (\S+))", true}).find(text) == "5");
  CHECK(AnswerFinder({R"(####)"}).find(text) == "####");
  CHECK_FALSE(first.find("none"));
  // A group that takes no part is empty.
  CHECK(AnswerFinder({R"((x)?y)"}).find("y") == "");
  CHECK(AnswerFinder({}).find(" The End.\n") == "the end");
  CHECK_THROWS_AS(AnswerFinder({"("}), UserError);
}
