// SPDX-License-Identifier: Apache-2.0
#include "serve/reply.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <atomic>
#include <chrono>
#include <random>
#include <utility>

namespace fettle::serve {
namespace {

const char* object_of(Api api, bool chunk) {
  if (api == Api::kCompletions) return "text_completion";
  return chunk ? "chat.completion.chunk" : "chat.completion";
}

const char* reason_of(decode::Finish finish) {
  return finish == decode::Finish::kLength ? "length" : "stop";
}

Json head_json(const ReplyHead& head, bool chunk) {
  return {
      {"id", head.id},
      {"object", object_of(head.api, chunk)},
      {"created", head.created},
      {"model", head.model}};
}

Json usage_of(
    const ApiRequest& request, const std::vector<decode::Completion>& made) {
  std::int64_t tokens = 0, known = 0;
  for (const decode::Completion& one : made) {
    tokens += std::ssize(one.ids);
    known += one.known_tokens;
  }
  return {
      {"prompt_tokens", request.prompt_tokens},
      {"completion_tokens", tokens},
      {"total_tokens", request.prompt_tokens + tokens},
      {"prompt_tokens_details",
       {{"cached_tokens", std::min(known, request.prompt_tokens)}}}};
}

std::string spelt(const text::Tokenizer& tokenizer, std::int32_t id) {
  const std::array one{id};
  return tokenizer.decode(one, {.skip_special_tokens = false});
}

Json bytes_of(const std::string& text) {
  Json bytes = Json::array();
  for (const char c : text) bytes.push_back(static_cast<unsigned char>(c));
  return bytes;
}

Json chat_log_probs(
    const std::vector<decode::Chances>& chances,
    const text::Tokenizer& tokenizer) {
  const auto entry = [&](const decode::TokenChance& one) -> Json {
    const std::string token = spelt(tokenizer, one.id);
    return {
        {"token", token},
        {"logprob", one.log_prob},
        {"bytes", bytes_of(token)}};
  };
  Json content = Json::array();
  for (const decode::Chances& place : chances) {
    Json token = entry(place.chosen);
    token["top_logprobs"] = Json::array();
    for (const auto& one : place.likeliest) {
      token["top_logprobs"].push_back(entry(one));
    }
    content.push_back(std::move(token));
  }
  return {{"content", content}};
}

// Each token's text, log-probability, the likeliest and where its text begins.
struct CompletionLogProbs {
  Json tokens = Json::array();
  Json values = Json::array();
  Json likeliest = Json::array();
  Json offsets = Json::array();
  std::size_t offset = 0;

  void add(const std::string& token, Json value, Json top) {
    tokens.push_back(token);
    values.push_back(std::move(value));
    likeliest.push_back(std::move(top));
    offsets.push_back(offset);
    offset += token.size();
  }

  void add(const decode::Chances& place, const text::Tokenizer& tokenizer) {
    Json top = Json::object();
    for (const auto& one : place.likeliest) {
      top[spelt(tokenizer, one.id)] = one.log_prob;
    }
    add(spelt(tokenizer, place.chosen.id),
        place.chosen.log_prob,
        std::move(top));
  }

  Json to_json() const {
    return {
        {"tokens", tokens},
        {"token_logprobs", values},
        {"top_logprobs", likeliest},
        {"text_offset", offsets}};
  }
};

// The first token of a prompt has no chance.
Json completion_log_probs(
    const decode::Request& request,
    const decode::Completion& made,
    const text::Tokenizer& tokenizer) {
  CompletionLogProbs all;
  if (request.prompt_chances) {
    all.add(spelt(tokenizer, request.prompt.front()), nullptr, nullptr);
  }
  for (const auto& place : made.prompt_chances) all.add(place, tokenizer);
  for (const auto& place : made.chances) all.add(place, tokenizer);
  return all.to_json();
}

Json log_probs_of_piece(Api api, const Piece& piece, ChunkTokens& tokens) {
  if (api == Api::kChat) return chat_log_probs(piece.chances, tokens.tokenizer);
  CompletionLogProbs all;
  all.offset = tokens.offset;
  for (const auto& place : piece.chances) all.add(place, tokens.tokenizer);
  tokens.offset = all.offset;
  return all.to_json();
}

Json choice_json(
    const ApiRequest& request,
    std::size_t choice,
    const decode::Completion& made,
    const text::Tokenizer& tokenizer) {
  const bool chat = request.api == Api::kChat;
  Json json = {
      {"index", choice},
      {"finish_reason", reason_of(made.finish)},
      {"logprobs", nullptr}};
  if (request.choices[choice].log_probs) {
    json["logprobs"] =
        chat ? chat_log_probs(made.chances, tokenizer)
             : completion_log_probs(request.choices[choice], made, tokenizer);
  }
  if (chat) {
    json["message"] = {{"role", "assistant"}, {"content", made.text}};
  } else {
    const auto& prompt = request.choices[choice].prompt;
    json["text"] =
        (request.echo ? tokenizer.decode(prompt) : std::string()) + made.text;
  }
  return json;
}

}  // namespace

ReplyHead new_head(Api api, const std::string& model) {
  static const std::uint64_t begin = std::random_device{}();
  static std::atomic<std::uint64_t> count = 0;
  const auto now = std::chrono::system_clock::now().time_since_epoch();
  return {
      .api = api,
      .id = fmt::format(
          "{}-{:08x}{:08x}",
          api == Api::kChat ? "chatcmpl" : "cmpl",
          begin,
          ++count),
      .model = model,
      .created = std::chrono::duration_cast<std::chrono::seconds>(now).count()};
}

Json whole_reply(
    const ReplyHead& head,
    const ApiRequest& request,
    const std::vector<decode::Completion>& made,
    const text::Tokenizer& tokenizer) {
  Json json = head_json(head, false);
  json["choices"] = Json::array();
  for (std::size_t i = 0; i < made.size(); ++i) {
    json["choices"].push_back(choice_json(request, i, made[i], tokenizer));
  }
  json["usage"] = usage_of(request, made);
  return json;
}

Json chunk_of(const ReplyHead& head, const Piece& piece, ChunkTokens& tokens) {
  Json json = head_json(head, true);
  Json choice = {{"index", piece.choice}, {"finish_reason", nullptr}};
  if (piece.completion) {
    choice["finish_reason"] = reason_of(piece.completion->finish);
  }
  if (head.api == Api::kChat) {
    choice["delta"] = Json::object();
    if (!piece.text.empty()) choice["delta"]["content"] = piece.text;
  } else {
    choice["text"] = piece.text;
  }
  if (!piece.chances.empty()) {
    choice["logprobs"] = log_probs_of_piece(head.api, piece, tokens);
  }
  json["choices"] = Json::array({std::move(choice)});
  return json;
}

Json first_chunk(
    const ReplyHead& head,
    std::size_t choice,
    const ApiRequest& request,
    const text::Tokenizer& tokenizer) {
  if (head.api == Api::kChat) {
    ChunkTokens none{tokenizer};
    Json json = chunk_of(head, {.choice = choice}, none);
    json["choices"][0]["delta"] = {{"role", "assistant"}, {"content", ""}};
    return json;
  }
  if (!request.echo) return nullptr;
  const std::string prompt = tokenizer.decode(request.choices[choice].prompt);
  ChunkTokens none{tokenizer};
  return chunk_of(head, {.choice = choice, .text = prompt}, none);
}

Json usage_chunk(
    const ReplyHead& head,
    const ApiRequest& request,
    const std::vector<decode::Completion>& made) {
  Json json = head_json(head, true);
  json["choices"] = Json::array();
  json["usage"] = usage_of(request, made);
  return json;
}

std::string dumped(const Json& json) {
  return json.dump(-1, ' ', false, Json::error_handler_t::replace);
}

std::string event_of(const Json& json) {
  return fmt::format("data: {}\n\n", dumped(json));
}

}  // namespace fettle::serve
