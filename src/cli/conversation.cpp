// SPDX-License-Identifier: Apache-2.0
#include "cli/conversation.h"

#include <algorithm>
#include <utility>

#include "decode/engine.h"
#include "model/layers/layer_state.h"

namespace fettle::cli {

Conversation::Conversation(text::SampleOptions options)
    : options_(std::move(options)) {}

void Conversation::add(const std::string& role, const std::string& content) {
  messages_.push_back({{"role", role}, {"content", content}});
}

void Conversation::clear() {
  Json kept = Json::array();
  if (!messages_.empty() && messages_[0]["role"] == "system") {
    kept.push_back(messages_[0]);
  }
  messages_ = std::move(kept);
}

std::vector<std::int32_t> Conversation::prompt(
    const text::Tokenizer& tokenizer) {
  return asked_ids(options_, tokenizer, Json{{"messages", messages_}}.dump());
}

// A template writes a text's begin itself.
std::vector<std::int32_t> asked_ids(
    const text::SampleOptions& options,
    const text::Tokenizer& tokenizer,
    const std::string& row) {
  auto& session = options.chat->session;
  if (!session) {
    session = std::make_unique<text::ChatSession>(
        options.renderer, options.model_folder);
  }
  return tokenizer.encode(
      session->ask(row, "chat"), {.add_special_tokens = false});
}

sweep::Workload decoding_workload(
    std::int64_t prompt, std::int64_t tokens, std::int64_t parallel) {
  sweep::Workload workload;
  workload.longest_sequence =
      std::max(std::min(prompt, decode::kPromptChunk), parallel);
  workload.tokens = workload.longest_sequence;
  workload.keep_packed = true;
  workload.takes_experts_apart = true;
  workload.cached_tokens = tokens;
  workload.cached_sequences = parallel;
  workload.logit_rows = parallel;
  return workload;
}

sweep::StageMemory prefix_memory(
    const model::ModelConfig& config, std::int64_t tokens, at::Device device) {
  // One part more is there before another one goes.
  const std::int64_t parts = tokens / decode::kPromptChunk + 1;
  const std::int64_t bytes =
      tokens == 0 ? 0
                  : parts * model::state_bytes(
                                config, decode::kPromptChunk, at::kFloat);
  return {bytes, device.is_cpu() ? 0 : bytes};
}

}  // namespace fettle::cli
