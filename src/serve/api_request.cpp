// SPDX-License-Identifier: Apache-2.0
#include "serve/api_request.h"

#include <fmt/format.h>

#include <algorithm>
#include <charconv>
#include <cmath>
#include <limits>
#include <optional>
#include <random>
#include <system_error>
#include <utility>

#include "core/error.h"
#include "core/json_text.h"
#include "serve/api_error.h"
#include "serve/field_reader.h"

namespace fettle::serve {
namespace {

constexpr std::size_t kMostStops = 16;
constexpr std::size_t kLongestStop = 1024;  // bytes
constexpr std::int64_t kMostLogProbs = 20;
constexpr double kMostChoices = 128;
constexpr std::size_t kMostBiases = 1024;
constexpr double kMostBias = 100;
constexpr double kMostTokens = 1e9;
constexpr double kMostSeed = 9007199254740992.0;  // 2^53

using Prompts = std::vector<std::vector<std::int32_t>>;

std::vector<std::int32_t> given_ids(const Json& list, const Served& served) {
  std::vector<std::int32_t> ids;
  for (const Json& one : list) {
    const bool known =
        one.is_number_integer() && one >= 0 && one < Json(served.vocab_size);
    if (!known) {
      refuse_field(
          "prompt",
          fmt::format(
              "expected tokens from 0 to {}, found {}",
              served.vocab_size - 1,
              shown(one)));
    }
    ids.push_back(one.get<std::int32_t>());
  }
  return ids;
}

// A text, texts, tokens, or lists of tokens.
Prompts given_prompts(FieldReader& fields, const Served& served) {
  const Json* const prompt = fields.find("prompt");
  if (prompt == nullptr) refuse_field("prompt", "is missing");
  const auto one = [&](const Json& value) -> std::vector<std::int32_t> {
    if (value.is_string()) {
      return served.tokenizer.encode(value.get_ref<const std::string&>());
    }
    if (value.is_array()) return given_ids(value, served);
    refuse_field(
        "prompt", "expected text or a list of tokens, found " + shown(value));
  };
  if (!prompt->is_array() || prompt->empty() || prompt->front().is_number()) {
    return {one(*prompt)};
  }
  Prompts prompts;
  for (const Json& value : *prompt) prompts.push_back(one(value));
  return prompts;
}

// Content as parts becomes their text: templates of text models want a string.
void join_text_parts(Json& message) {
  if (!message.is_object()) {
    refuse_field("messages", "expected objects, found " + shown(message));
  }
  const auto content = message.find("content");
  if (content == message.end() || !content->is_array()) return;
  std::string text;
  for (const Json& part : *content) {
    const bool is_text = part.is_object() && part.value("type", "") == "text" &&
                         part.contains("text") && part["text"].is_string();
    if (!is_text) {
      refuse_field(
          "messages",
          "only parts of text are understood, found " + shown(part));
    }
    text += part["text"].get<std::string>();
  }
  *content = text;
}

std::vector<std::int32_t> conversation_ids(
    FieldReader& fields, const Served& served) {
  const Json* const given = fields.find("messages");
  if (given == nullptr || !given->is_array() || given->empty()) {
    refuse_field("messages", "expected a list of messages");
  }
  Json row = {{"messages", *given}};
  for (Json& message : row["messages"]) join_text_parts(message);
  for (const char* const key : {"tools", "documents", "chat_template_kwargs"}) {
    if (const Json* const value = fields.find(key)) row[key] = *value;
  }
  try {
    return served.ask(row.dump());
  } catch (const UserError& error) {
    refuse_field("messages", error.what());
  }
}

decode::SamplingOptions sampling_of(FieldReader& fields) {
  decode::SamplingOptions s;
  s.temperature = fields.number("temperature", 1.0, {0, 100});
  s.top_p = fields.number("top_p", 1.0, {0, 1});
  s.min_p = fields.number("min_p", 0.0, {0, 1});
  s.top_k =
      std::max<std::int64_t>(fields.integer("top_k", 0, {-1, kMostTokens}), 0);
  s.repetition_penalty = fields.number("repetition_penalty", 1, {0.01, 100});
  s.presence_penalty = fields.number("presence_penalty", 0, {-100, 100});
  s.frequency_penalty = fields.number("frequency_penalty", 0, {-100, 100});
  return s;
}

// An object from tokens to what is added to their logits.
std::vector<std::pair<std::int32_t, float>> bias_of(
    FieldReader& fields, const Served& served) {
  std::vector<std::pair<std::int32_t, float>> bias;
  const Json* const given = fields.find("logit_bias");
  if (given == nullptr) return bias;
  if (!given->is_object() || given->size() > kMostBiases) {
    refuse_field(
        "logit_bias",
        fmt::format("expected an object of at most {} tokens", kMostBiases));
  }
  for (const auto& [key, value] : given->items()) {
    std::int32_t id = 0;
    const char* const end = key.data() + key.size();
    const auto [read, failed] = std::from_chars(key.data(), end, id);
    const bool known = failed == std::errc() && read == end && id >= 0 &&
                       id < served.vocab_size;
    if (!known) {
      refuse_field(
          "logit_bias",
          fmt::format(
              "expected tokens from 0 to {}, found {}",
              served.vocab_size - 1,
              shown(key)));
    }
    if (!value.is_number() || std::abs(value.get<double>()) > kMostBias) {
      refuse_field(
          "logit_bias",
          fmt::format(
              "expected numbers from -{0} to {0}, found {1}",
              kMostBias,
              shown(value)));
    }
    bias.emplace_back(id, value.get<float>());
  }
  return bias;
}

// Without a seed, people expect another answer each time.
std::uint64_t seed_of(FieldReader& fields) {
  if (fields.find("seed") == nullptr) return std::random_device{}();
  return static_cast<std::uint64_t>(fields.integer("seed", 0, {0, kMostSeed}));
}

std::vector<std::string> stops_of(FieldReader& fields) {
  std::vector<std::string> stops = fields.strings("stop", kMostStops);
  for (const std::string& stop : stops) {
    if (stop.size() > kLongestStop) {
      refuse_field(
          "stop", fmt::format("expected at most {} bytes each", kLongestStop));
    }
  }
  return stops;
}

std::optional<std::int64_t> log_probs_of(Api api, FieldReader& fields) {
  const NumberRange range{0, static_cast<double>(kMostLogProbs)};
  if (api == Api::kCompletions) {
    if (fields.find("logprobs") == nullptr) return std::nullopt;
    return fields.integer("logprobs", 0, range);
  }
  const bool wanted = fields.boolean("logprobs", false);
  const std::int64_t count = fields.integer("top_logprobs", 0, range);
  if (!wanted && count > 0) refuse_field("top_logprobs", "needs logprobs");
  return wanted ? std::optional(count) : std::nullopt;
}

// What would change the answer and isn't there.
void refuse_wishes(Api api, FieldReader& fields) {
  const auto only = [&](const char* key, std::initializer_list<Json> values) {
    const Json* const found = fields.find(key);
    if (found == nullptr || std::ranges::count(values, *found) > 0) return;
    refuse_field(key, shown(*found) + " isn't supported here");
  };
  if (api == Api::kCompletions) {
    only("suffix", {""});
    only("best_of", {1});
  } else {
    only("response_format", {Json{{"type", "text"}}});
    only("tool_choice", {"auto", "none"});
    only("modalities", {Json::array({"text"})});
  }
}

// How many tokens a prompt's answer may have. Throws where there is no room.
std::int64_t room_for(
    std::int64_t prompt,
    std::optional<std::int64_t> asked,
    Api api,
    const Served& served) {
  const std::int64_t room = served.context - prompt;
  const std::int64_t wanted =
      asked.value_or(api == Api::kChat ? std::max<std::int64_t>(room, 1) : 16);
  if (wanted <= room) return wanted;
  throw ApiError(
      {.message = fmt::format(
           "This server has room for {} tokens a request. The prompt has {}, "
           "and {} more are asked for; shorten the one or the other",
           served.context,
           prompt,
           wanted),
       .param = "max_tokens",
       .code = "context_length_exceeded"});
}

void check_model(FieldReader& fields, const Served& served) {
  const auto model = fields.string("model");
  if (!model || *model == served.name) return;
  throw ApiError(
      {.status = 404,
       .message = fmt::format(
           "The model {} isn't served here; this is {}",
           shown(*model),
           served.name),
       .param = "model",
       .code = "model_not_found"});
}

// The answer's form.
ApiRequest stream_of(Api api, FieldReader& fields) {
  ApiRequest request{.api = api};
  request.stream = fields.boolean("stream", false);
  if (const Json* const options = fields.find("stream_options")) {
    FieldReader stream(*options);
    request.include_usage = stream.boolean("include_usage", false);
    stream.finish();
  }
  if (api == Api::kCompletions) request.echo = fields.boolean("echo", false);
  return request;
}

std::optional<std::int64_t> most_tokens(FieldReader& fields) {
  std::optional<std::int64_t> most;
  for (const char* const key : {"max_tokens", "max_completion_tokens"}) {
    if (fields.find(key) == nullptr) continue;
    most = fields.integer(key, 0, {0, kMostTokens});
  }
  return most;
}

// What all choices have in common.
decode::Request choice_of(Api api, FieldReader& fields, const Served& served) {
  decode::Request choice{
      .prompt = {},
      .sampling = sampling_of(fields),
      .ends = served.ends,
      .stops = stops_of(fields),
      .log_probs = log_probs_of(api, fields)};
  choice.sampling.seed = seed_of(fields);
  choice.sampling.bias = bias_of(fields, served);
  if (fields.boolean("ignore_eos", false)) choice.ends.clear();
  return choice;
}

}  // namespace

Json read_body(std::string_view body) {
  try {
    return parse_json(body, "request", "body");
  } catch (const UserError& error) {
    throw ApiError({.message = error.what()});
  }
}

ApiRequest read_request(Api api, std::string_view body, const Served& served) {
  const Json json = read_body(body);
  FieldReader fields(json);
  check_model(fields, served);
  ApiRequest request = stream_of(api, fields);
  const std::int64_t n = fields.integer("n", 1, {1, kMostChoices});
  const std::optional<std::int64_t> most = most_tokens(fields);
  decode::Request choice = choice_of(api, fields, served);
  refuse_wishes(api, fields);
  fields.ignore(
      {"user",
       "metadata",
       "store",
       "service_tier",
       "parallel_tool_calls",
       "prompt_cache_key",
       "safety_identifier"});
  const Prompts prompts = api == Api::kChat
                              ? Prompts{conversation_ids(fields, served)}
                              : given_prompts(fields, served);
  fields.finish();
  if (request.stream && request.echo && choice.log_probs) {
    refuse_field("echo", "can't be streamed with logprobs; leave out stream");
  }
  choice.prompt_chances = request.echo && choice.log_probs.has_value();
  const std::uint64_t seed = choice.sampling.seed;
  for (const auto& prompt : prompts) {
    if (prompt.empty()) refuse_field("prompt", "holds no token to begin from");
    request.prompt_tokens += std::ssize(prompt);
    choice.prompt = prompt;
    choice.max_new_tokens = room_for(std::ssize(prompt), most, api, served);
    for (std::int64_t i = 0; i < n; ++i) {
      choice.sampling.seed = seed + static_cast<std::uint64_t>(i);
      request.choices.push_back(choice);
    }
  }
  return request;
}

}  // namespace fettle::serve
