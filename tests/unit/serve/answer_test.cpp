// SPDX-License-Identifier: Apache-2.0
#include "serve/answer.h"

#include <catch2/catch.hpp>

#include "../text/letters.h"

using namespace fettle;
using namespace fettle::serve;

namespace {

ReplyHead head(Api api) {
  return {.api = api, .id = "id", .model = "tiny", .created = 3};
}

ApiRequest request(Api api, bool stream) {
  ApiRequest result{.api = api, .prompt_tokens = 2, .stream = stream};
  result.choices.push_back({.prompt = {0, 1}});
  return result;
}

decode::Completion made(const std::string& text) {
  return {.ids = {2, 3}, .text = text, .finish = decode::Finish::kLength};
}

// All that a client gets of a job that has it all.
std::string written(ApiRequest asked, const std::vector<Piece>& pieces) {
  const text::Tokenizer tokenizer = testing::letters();
  const auto job = std::make_shared<Job>();
  for (const Piece& piece : pieces) job->put(piece);
  Answer answer(head(asked.api), std::move(asked), job, tokenizer);
  std::string text;
  const Client client{
      .write = [&](std::string_view part) { text += part; },
      .is_there = [] { return true; }};
  while (answer.go_on(client)) {
  }
  return text;
}

std::vector<Json> events(const std::string& text) {
  std::vector<Json> all;
  std::size_t at = 0;
  while (text.compare(at, 6, "data: ") == 0) {
    const std::size_t end = text.find("\n\n", at);
    const std::string data = text.substr(at + 6, end - at - 6);
    at = end + 2;
    if (data == "[DONE]") break;
    all.push_back(Json::parse(data));
  }
  CHECK(at == text.size());
  CHECK(text.ends_with("data: [DONE]\n\n"));
  return all;
}

}  // namespace

TEST_CASE("a whole completion is OpenAI's object") {
  const Json json = Json::parse(written(
      request(Api::kCompletions, false),
      {{.text = "c"}, {.text = "d"}, {.completion = made("cd")}}));
  CHECK(json["object"] == "text_completion");
  CHECK(json["model"] == "tiny");
  CHECK(json["choices"][0]["text"] == "cd");
  CHECK(json["choices"][0]["finish_reason"] == "length");
  CHECK(json["choices"][0]["logprobs"].is_null());
  CHECK(json["usage"]["prompt_tokens"] == 2);
  CHECK(json["usage"]["completion_tokens"] == 2);
  CHECK(json["usage"]["total_tokens"] == 4);
}

TEST_CASE("an echo begins with the prompt") {
  ApiRequest asked = request(Api::kCompletions, false);
  asked.echo = true;
  const Json json = Json::parse(written(asked, {{.completion = made("cd")}}));
  CHECK(json["choices"][0]["text"] == "abcd");
  asked.stream = true;
  const auto chunks = events(written(asked, {{.completion = made("")}}));
  CHECK(chunks.front()["choices"][0]["text"] == "ab");
}

TEST_CASE("log-probabilities have the forms of both APIs") {
  decode::Completion completion = made("cd");
  completion.chances = {
      {.chosen = {2, -0.5}, .likeliest = {{2, -0.5}, {4, -1.5}}},
      {.chosen = {3, -0.25}, .likeliest = {{3, -0.25}}}};
  ApiRequest asked = request(Api::kCompletions, false);
  asked.choices[0].log_probs = 2;
  const Json old = Json::parse(
      written(asked, {{.completion = completion}}))["choices"][0]["logprobs"];
  CHECK(old["tokens"] == Json({"c", "d"}));
  CHECK(old["token_logprobs"] == Json({-0.5, -0.25}));
  CHECK(old["top_logprobs"][0] == Json({{"c", -0.5}, {"e", -1.5}}));
  CHECK(old["text_offset"] == Json({0, 1}));
  asked.echo = asked.choices[0].prompt_chances = true;
  completion.prompt_chances = {{.chosen = {1, -2.0}, .likeliest = {{0, -1.0}}}};
  const Json echo = Json::parse(
      written(asked, {{.completion = completion}}))["choices"][0]["logprobs"];
  CHECK(echo["tokens"] == Json({"a", "b", "c", "d"}));
  CHECK(echo["token_logprobs"] == Json({nullptr, -2.0, -0.5, -0.25}));
  CHECK(echo["top_logprobs"][1] == Json({{"a", -1.0}}));
  CHECK(echo["text_offset"] == Json({0, 1, 2, 3}));
  asked.api = Api::kChat;
  const Json chat = Json::parse(
      written(asked, {{.completion = completion}}))["choices"][0]["logprobs"];
  CHECK(chat["content"][0]["token"] == "c");
  CHECK(chat["content"][0]["bytes"] == Json({99}));
  CHECK(chat["content"][0]["top_logprobs"][1]["logprob"] == -1.5);
}

TEST_CASE("a streamed chat begins with its role and ends with its reason") {
  ApiRequest asked = request(Api::kChat, true);
  asked.include_usage = true;
  const auto chunks = events(written(
      asked, {{.text = "c"}, {.text = "d"}, {.completion = made("cd")}}));
  REQUIRE(chunks.size() == 5);
  CHECK(chunks[0]["object"] == "chat.completion.chunk");
  CHECK(chunks[0]["choices"][0]["delta"]["role"] == "assistant");
  CHECK(chunks[1]["choices"][0]["delta"]["content"] == "c");
  CHECK(chunks[2]["choices"][0]["delta"]["content"] == "d");
  CHECK(chunks[2]["choices"][0]["finish_reason"].is_null());
  CHECK(chunks[3]["choices"][0]["finish_reason"] == "length");
  CHECK(chunks[4]["choices"].empty());
  CHECK(chunks[4]["usage"]["completion_tokens"] == 2);
}

TEST_CASE("a stream's chunks have the log-probabilities of their tokens") {
  const decode::Chances c{.chosen = {2, -0.5}, .likeliest = {{4, -1.5}}};
  const decode::Chances d{.chosen = {3, -0.25}, .likeliest = {}};
  for (const Api api : {Api::kCompletions, Api::kChat}) {
    const auto chunks = events(written(
        request(api, true),
        {{.text = "cd", .chances = {c, d}},
         {.text = "", .chances = {c}},
         {.completion = made("cdc")}}));
    if (api == Api::kChat) {
      const Json first = chunks[1]["choices"][0]["logprobs"]["content"];
      CHECK(first.size() == 2);
      CHECK(first[1]["token"] == "d");
      CHECK(chunks[2]["choices"][0]["logprobs"]["content"].size() == 1);
    } else {
      const Json first = chunks[0]["choices"][0]["logprobs"];
      CHECK(first["token_logprobs"] == Json({-0.5, -0.25}));
      CHECK(first["text_offset"] == Json({0, 1}));
      const Json second = chunks[1]["choices"][0]["logprobs"];
      CHECK(second["text_offset"] == Json(std::vector<int>{2}));
    }
    CHECK_FALSE(chunks.back()["choices"][0].contains("logprobs"));
  }
}

TEST_CASE("half a character is sent as a replacement") {
  const std::string text = written(
      request(Api::kCompletions, false), {{.completion = made("c\xe2\x82")}});
  CHECK(Json::parse(text)["choices"][0]["text"] == "c\xef\xbf\xbd");
}

TEST_CASE("a failure on the way is an error object") {
  for (const bool stream : {false, true}) {
    const std::string text = written(
        request(Api::kChat, stream), {{.text = "c"}, {.failure = "no sense"}});
    CHECK(text.find("no sense") != std::string::npos);
    CHECK(text.find("server_error") != std::string::npos);
  }
}

TEST_CASE("a client that is gone is not written to, and nothing decoded") {
  const text::Tokenizer tokenizer = testing::letters();
  const auto job = std::make_shared<Job>();
  {
    Answer answer(head(Api::kChat), request(Api::kChat, false), job, tokenizer);
    const Client gone{
        .write = [](std::string_view) { FAIL("written"); },
        .is_there = [] { return false; }};
    CHECK_FALSE(answer.go_on(gone));
    CHECK(job->abandoned());
  }
}
