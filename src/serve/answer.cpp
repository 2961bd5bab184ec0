// SPDX-License-Identifier: Apache-2.0
#include "serve/answer.h"

#include <chrono>
#include <utility>

#include "serve/api_error.h"

namespace fettle::serve {
namespace {

// How often a client is looked for while nothing is made.
constexpr std::chrono::milliseconds kPatience{250};

}  // namespace

Answer::Answer(
    ReplyHead head,
    ApiRequest request,
    std::shared_ptr<Job> job,
    const text::Tokenizer& tokenizer)
    : head_(std::move(head)),
      request_(std::move(request)),
      job_(std::move(job)),
      tokenizer_(tokenizer),
      made_(request_.choices.size()),
      tokens_(request_.choices.size(), ChunkTokens{tokenizer}) {}

const char* Answer::content_type() const {
  return request_.stream ? "text/event-stream" : "application/json";
}

bool Answer::go_on(const Client& client) {
  if (!begun_) begin(client);
  begun_ = true;
  auto piece = job_->next(kPatience);
  if (!client.is_there()) {
    job_->abandon();
    return false;
  }
  if (!piece) return true;
  take(std::move(*piece), client);
  if (failure_.empty() && done_ < made_.size()) return true;
  end(client);
  return false;
}

void Answer::begin(const Client& client) const {
  if (!request_.stream) return;
  for (std::size_t i = 0; i < made_.size(); ++i) {
    const Json chunk = first_chunk(head_, i, request_, tokenizer_);
    if (!chunk.is_null()) client.write(event_of(chunk));
  }
}

void Answer::take(Piece piece, const Client& client) {
  if (!piece.failure.empty()) {
    failure_ = std::move(piece.failure);
    return;
  }
  if (request_.stream) {
    client.write(event_of(chunk_of(head_, piece, tokens_[piece.choice])));
  }
  if (!piece.completion) return;
  made_[piece.choice] = std::move(*piece.completion);
  ++done_;
}

void Answer::end(const Client& client) const {
  if (!failure_.empty()) {
    const Json error = ApiError({.status = 500, .message = failure_}).to_json();
    client.write(request_.stream ? event_of(error) : dumped(error));
    return;
  }
  if (!request_.stream) {
    client.write(dumped(whole_reply(head_, request_, made_, tokenizer_)));
    return;
  }
  if (request_.include_usage) {
    client.write(event_of(usage_chunk(head_, request_, made_)));
  }
  client.write(kLastEvent);
}

}  // namespace fettle::serve
