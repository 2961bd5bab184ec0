// SPDX-License-Identifier: Apache-2.0
// Answers as OpenAI's API has them: one JSON object, or a stream of chunks.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "core/json.h"
#include "serve/api_request.h"
#include "serve/job.h"

namespace fettle::serve {

// What all parts of an answer have in common.
struct ReplyHead {
  Api api = Api::kCompletions;
  std::string id;            // "cmpl-…"
  std::string model;         // as the request names it
  std::int64_t created = 0;  // seconds since 1970
};

// A head with an id of its own, made now.
ReplyHead new_head(Api api, const std::string& model);

// The whole answer. `made` has the completion of each of the request's choices.
Json whole_reply(
    const ReplyHead& head,
    const ApiRequest& request,
    const std::vector<decode::Completion>& made,
    const text::Tokenizer& tokenizer);

// How a chunk spells the tokens whose chances it has, and how many bytes of
// tokens the chunks of its choice had before.
struct ChunkTokens {
  const text::Tokenizer& tokenizer;
  std::size_t offset = 0;
};

// A chunk of a streamed answer: a choice's text, or its end. Moves the offset.
Json chunk_of(const ReplyHead& head, const Piece& piece, ChunkTokens& tokens);
// What a choice's stream begins with: the role of a chat's answer, or the
// prompt where it is to be echoed. Null: nothing.
Json first_chunk(
    const ReplyHead& head,
    std::size_t choice,
    const ApiRequest& request,
    const text::Tokenizer& tokenizer);
// The chunk behind all choices, where the request wants one.
Json usage_chunk(
    const ReplyHead& head,
    const ApiRequest& request,
    const std::vector<decode::Completion>& made);

// JSON as it is sent: half a character, at the end of a text, is replaced.
std::string dumped(const Json& json);
// As an event of a stream.
std::string event_of(const Json& json);
inline constexpr const char* kLastEvent = "data: [DONE]\n\n";

}  // namespace fettle::serve
