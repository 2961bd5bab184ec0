// SPDX-License-Identifier: Apache-2.0
// Writes one request's answer to its client as the model makes it.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "serve/reply.h"

namespace fettle::serve {

// Where an answer goes.
struct Client {
  std::function<void(std::string_view)> write;
  std::function<bool()> is_there;
};

class Answer {
 public:
  // Keeps a reference to the tokenizer.
  Answer(
      ReplyHead head,
      ApiRequest request,
      std::shared_ptr<Job> job,
      const text::Tokenizer& tokenizer);
  // What is left is not decoded.
  ~Answer() { job_->abandon(); }
  Answer(const Answer&) = delete;
  Answer& operator=(const Answer&) = delete;

  // "application/json" or "text/event-stream".
  const char* content_type() const;
  // Writes what has been made, waiting for it a while. False once the answer is
  // whole, or nobody is there to read it.
  bool go_on(const Client& client);

 private:
  void begin(const Client& client) const;
  void take(Piece piece, const Client& client);
  void end(const Client& client) const;

  ReplyHead head_;
  ApiRequest request_;
  std::shared_ptr<Job> job_;
  const text::Tokenizer& tokenizer_;
  std::vector<decode::Completion> made_;
  std::vector<ChunkTokens> tokens_;  // of each choice
  std::size_t done_ = 0;
  std::string failure_;
  bool begun_ = false;
};

}  // namespace fettle::serve
