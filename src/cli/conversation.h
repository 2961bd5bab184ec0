// SPDX-License-Identifier: Apache-2.0
// A conversation with the assistant as the model's chat template asks for its
// next answer, and the memory that decoding takes.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "core/json.h"
#include "sweep/plan.h"
#include "text/sample_encoder.h"
#include "text/tokenizer.h"

namespace fettle::cli {

// The tokens up to where the assistant's next answer begins. `row` is a JSON
// object with "messages" and what else the model's chat template reads;
// `options` say where template and renderer are. Throws UserError where there
// is no template, or it refuses the row.
std::vector<std::int32_t> asked_ids(
    const text::SampleOptions& options,
    const text::Tokenizer& tokenizer,
    const std::string& row);

class Conversation {
 public:
  // `options` say where template and renderer are.
  explicit Conversation(text::SampleOptions options);

  void add(const std::string& role, const std::string& content);
  // Without the last message.
  void take_back() { messages_.erase(messages_.size() - 1); }
  // Without its messages, but for the system's.
  void clear();
  const Json& messages() const { return messages_; }

  // Up to where the assistant's next answer begins. Throws UserError where
  // there is no template, or it refuses the messages.
  std::vector<std::int32_t> prompt(const text::Tokenizer& tokenizer);

 private:
  text::SampleOptions options_;
  Json messages_ = Json::array();
};

// Of decoding `parallel` sequences of at most `tokens` tokens, whose prompts
// have at most `prompt`.
sweep::Workload decoding_workload(
    std::int64_t prompt, std::int64_t tokens, std::int64_t parallel);
// What `tokens` tokens of prompts' beginnings take that are kept.
sweep::StageMemory prefix_memory(
    const model::ModelConfig& config, std::int64_t tokens, at::Device device);

}  // namespace fettle::cli
