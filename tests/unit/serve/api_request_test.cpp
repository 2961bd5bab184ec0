// SPDX-License-Identifier: Apache-2.0
#include "serve/api_request.h"

#include <catch2/catch.hpp>

#include "../text/letters.h"
#include "core/error.h"
#include "serve/api_error.h"

using Catch::Contains;
using namespace fettle;
using namespace fettle::serve;

namespace {

ApiRequest read(Api api, const Json& body) {
  static const text::Tokenizer tokenizer = testing::letters();
  const Served served{
      .tokenizer = tokenizer,
      .name = "tiny",
      .vocab_size = 10,
      .context = 40,
      .ends = {9},
      .ask = [](const std::string& row) -> std::vector<std::int32_t> {
        const Json json = Json::parse(row);
        if (json["messages"][0]["content"] == "bad") {
          throw UserError("chat", "messages", "the template refuses it");
        }
        return std::vector<std::int32_t>(json.size() + 2, 1);
      }};
  return read_request(api, body.dump(), served);
}

ApiRequest completion(const Json& body) {
  return read(Api::kCompletions, body);
}

Json user(const Json& content) {
  return {{"messages", {{{"role", "user"}, {"content", content}}}}};
}

Refusal refusal_of(Api api, const Json& body) {
  try {
    read(api, body);
  } catch (const ApiError& error) {
    return error.refusal();
  }
  FAIL("not refused: " << body.dump());
  return {};
}

}  // namespace

TEST_CASE("a completion has OpenAI's defaults") {
  const ApiRequest request = completion({{"prompt", "abc"}});
  REQUIRE(request.choices.size() == 1);
  const decode::Request& one = request.choices[0];
  CHECK(one.prompt == std::vector<std::int32_t>{0, 1, 2});
  CHECK(one.max_new_tokens == 16);
  CHECK(one.sampling.temperature == 1.0);
  CHECK(one.ends == std::vector<std::int64_t>{9});
  CHECK_FALSE(one.log_probs);
  CHECK_FALSE(request.stream);
  CHECK(request.prompt_tokens == 3);
}

TEST_CASE("what a completion asks for reaches the engine") {
  const ApiRequest request = completion(
      {{"model", "tiny"},
       {"prompt", {3, 4}},
       {"max_tokens", 5},
       {"temperature", 0},
       {"top_p", 0.5},
       {"top_k", -1},
       {"min_p", 0.1},
       {"repetition_penalty", 1.5},
       {"presence_penalty", 0.25},
       {"frequency_penalty", -2},
       {"seed", 7},
       {"n", 2},
       {"stop", {"x", "y"}},
       {"logprobs", 3},
       {"ignore_eos", true},
       {"user", "somebody"}});
  REQUIRE(request.choices.size() == 2);
  const decode::Request& one = request.choices[1];
  CHECK(one.prompt == std::vector<std::int32_t>{3, 4});
  CHECK(one.max_new_tokens == 5);
  CHECK(one.sampling.temperature == 0);
  CHECK(one.sampling.top_p == 0.5);
  CHECK(one.sampling.top_k == 0);
  CHECK(one.sampling.min_p == 0.1);
  CHECK(one.sampling.repetition_penalty == 1.5);
  CHECK(one.sampling.presence_penalty == 0.25);
  CHECK(one.sampling.frequency_penalty == -2);
  CHECK(request.choices[0].sampling.seed == 7);
  CHECK(one.sampling.seed == 8);
  CHECK(one.stops == std::vector<std::string>{"x", "y"});
  CHECK(one.log_probs == 3);
  CHECK(one.ends.empty());
}

TEST_CASE("prompts are a text, texts, tokens or lists of them") {
  CHECK(completion({{"prompt", {"ab", "c"}}}).choices.size() == 2);
  const auto lists = completion({{"prompt", {{1, 2}, {3}}}, {"n", 2}});
  CHECK(lists.choices.size() == 4);
  CHECK(lists.prompt_tokens == 3);
  CHECK(lists.choices[2].prompt == std::vector<std::int32_t>{3});
}

TEST_CASE("without a seed, answers differ") {
  const auto seed = [] {
    return completion({{"prompt", "a"}}).choices[0].sampling.seed;
  };
  CHECK_FALSE((seed() == seed() && seed() == seed()));
}

TEST_CASE("a chat has room for all that is left") {
  const ApiRequest request = read(Api::kChat, user("hello"));
  REQUIRE(request.choices.size() == 1);
  CHECK(request.choices[0].prompt.size() == 3);
  CHECK(request.choices[0].max_new_tokens == 37);
  Json more = user("hello");
  more.update(
      {{"max_completion_tokens", 4},
       {"tools", Json::array()},
       {"chat_template_kwargs", {{"enable_thinking", false}}},
       {"logprobs", true},
       {"top_logprobs", 2},
       {"response_format", {{"type", "text"}}},
       {"tool_choice", "auto"}});
  const ApiRequest full = read(Api::kChat, more);
  CHECK(full.choices[0].prompt.size() == 5);  // tools and kwargs came along
  CHECK(full.choices[0].max_new_tokens == 4);
  CHECK(full.choices[0].log_probs == 2);
}

TEST_CASE("parts of text are one text") {
  const Json parts = {
      {{"type", "text"}, {"text", "ba"}}, {{"type", "text"}, {"text", "d"}}};
  CHECK_THAT(
      refusal_of(Api::kChat, user(parts)).message, Contains("refuses it"));
  const Json image = {{{"type", "image_url"}, {"image_url", {{"url", "x"}}}}};
  CHECK_THAT(
      refusal_of(Api::kChat, user(image)).message,
      Contains("only parts of text"));
}

TEST_CASE("what a request can have wrongly is refused by name") {
  struct Case {
    Json body;
    std::string param;
  };
  const auto with = [](const std::string& key, const Json& value) {
    return Case{{{"prompt", "a"}, {key, value}}, key};
  };
  std::vector<Case> cases = {
      {Json::object(), "prompt"},
      {{{"prompt", 3}}, "prompt"},
      {{{"prompt", ""}}, "prompt"},
      {{{"prompt", {1, 10}}}, "prompt"},
      {{{"prompt", {1, -1}}}, "prompt"},
      {{{"prompt", {1, 1.5}}}, "prompt"},
      {{{"prompt", Json::array()}}, "prompt"},
      with("temperature", -1),
      with("temperature", "hot"),
      with("top_p", 1.5),
      with("n", 0),
      with("n", 1.5),
      with("n", 1e300),
      with("seed", -1),
      with("max_tokens", -1),
      with("stream", 1),
      with("stop", 3),
      with("stop", std::vector<std::string>(17, "x")),
      with("stop", std::string(2000, 'x')),
      with("logprobs", 21),
      with("logit_bias", {{"3", 101}}),
      with("logit_bias", {{"3", "much"}}),
      with("logit_bias", {{"-1", 1}}),
      with("logit_bias", {{"3x", 1}}),
      with("logit_bias", {{"100000", 1}}),
      with("logit_bias", {1}),
      with("best_of", 4),
      with("suffix", "end"),
      with("grammar", "root ::= x"),
  };
  for (const auto& [body, param] : cases) {
    INFO(body.dump());
    const Refusal refusal = refusal_of(Api::kCompletions, body);
    CHECK(refusal.status == 400);
    CHECK(refusal.param == param);
  }
  Json chat = user("hello");
  chat["response_format"] = {{"type", "json_object"}};
  CHECK(refusal_of(Api::kChat, chat).param == "response_format");
  CHECK(refusal_of(Api::kChat, {{"messages", 1}}).param == "messages");
  CHECK(refusal_of(Api::kChat, {{"messages", {1}}}).param.empty() == false);
  CHECK(refusal_of(Api::kChat, user("bad")).param == "messages");
  chat = user("hello");
  chat["top_logprobs"] = 2;
  CHECK(refusal_of(Api::kChat, chat).param == "top_logprobs");
}

TEST_CASE("log-probabilities of a prompt don't go with a stream") {
  Json body = {{"prompt", "a"}, {"logprobs", 1}, {"stream", true}};
  CHECK(completion(body).choices[0].log_probs == 1);
  body["echo"] = true;
  CHECK(refusal_of(Api::kCompletions, body).param == "echo");
}

TEST_CASE("a bias is one of tokens") {
  const ApiRequest request =
      completion({{"prompt", "a"}, {"logit_bias", {{"3", -100}, {"0", 0.5}}}});
  using Bias = std::vector<std::pair<std::int32_t, float>>;
  CHECK(request.choices[0].sampling.bias == Bias{{0, 0.5f}, {3, -100.0f}});
}

TEST_CASE("with an echo they are those of the prompt too") {
  const ApiRequest request = completion(
      {{"prompt", "a"}, {"logprobs", 1}, {"echo", true}, {"max_tokens", 0}});
  CHECK(request.choices[0].prompt_chances);
  CHECK_FALSE(
      completion({{"prompt", "a"}, {"echo", true}}).choices[0].prompt_chances);
}

TEST_CASE("another model, and more tokens than there is room for") {
  const Refusal model =
      refusal_of(Api::kCompletions, {{"prompt", "a"}, {"model", "gpt-4"}});
  CHECK(model.status == 404);
  CHECK(model.code == "model_not_found");
  const Refusal room =
      refusal_of(Api::kCompletions, {{"prompt", "abc"}, {"max_tokens", 38}});
  CHECK(room.code == "context_length_exceeded");
  CHECK_THAT(room.message, Contains("40 tokens") && Contains("prompt has 3"));
  CHECK_NOTHROW(completion({{"prompt", "abc"}, {"max_tokens", 37}}));
}

TEST_CASE("a body that is no JSON object is refused") {
  const text::Tokenizer tokenizer = testing::letters();
  const Served served{.tokenizer = tokenizer, .name = "tiny", .ask = {}};
  for (const char* body : {"", "{", "[]", "{\"prompt\": \"\xff\"}", "3"}) {
    CHECK_THROWS_AS(read_request(Api::kCompletions, body, served), ApiError);
  }
}

TEST_CASE("errors are OpenAI's objects") {
  const Json json =
      ApiError({.status = 429, .message = "full", .code = "queue_full"})
          .to_json()["error"];
  CHECK(json["type"] == "rate_limit_error");
  CHECK(json["message"] == "full");
  CHECK(json["code"] == "queue_full");
  CHECK(json["param"].is_null());
}
