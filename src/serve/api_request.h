// SPDX-License-Identifier: Apache-2.0
// The body of a request as OpenAI's API has it, checked and turned into
// requests to the engine. A field that is unknown, or that asks for what isn't
// there, is refused by name: silence would be taken for consent.
#pragma once

#include <cstdint>
#include <functional>
#include <string>
#include <string_view>
#include <vector>

#include "core/json.h"
#include "decode/engine.h"
#include "text/tokenizer.h"

namespace fettle::serve {

// The model that is served, and what it has room for.
struct Served {
  const text::Tokenizer& tokenizer;
  std::string name;
  std::int64_t vocab_size = 0;
  std::int64_t context = 0;  // tokens of a request and its answer
  std::vector<std::int64_t> ends = {};
  // Tokens of a conversation up to the assistant's next answer. `row` is a JSON
  // object with "messages" and what else the chat template reads. Throws
  // UserError where the template refuses it. Called by any thread.
  std::function<std::vector<std::int32_t>(const std::string& row)> ask;
};

enum class Api { kCompletions, kChat };

struct ApiRequest {
  Api api = Api::kCompletions;
  // One for each choice of each prompt, those of a prompt together.
  std::vector<decode::Request> choices = {};
  std::int64_t prompt_tokens = 0;  // of all prompts, each counted once
  bool stream = false;
  bool include_usage = false;  // in a stream
  bool echo = false;           // the prompt before the text
};

// Throws ApiError.
ApiRequest read_request(Api api, std::string_view body, const Served& served);

// A JSON object's text, as an error of the request where it is none.
Json read_body(std::string_view body);

}  // namespace fettle::serve
