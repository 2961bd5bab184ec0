// SPDX-License-Identifier: Apache-2.0
#include "sweep/micro_batches.h"

namespace fettle::sweep {

std::vector<model::TokenBatch> micro_batches(
    const std::vector<model::Sequence>& sequences,
    std::int64_t max_tokens,
    std::int64_t vocab_size) {
  std::vector<model::TokenBatch> batches;
  std::vector<model::Sequence> together;
  std::int64_t tokens = 0;
  const auto flush = [&] {
    if (!together.empty()) batches.push_back(model::pack(together, vocab_size));
    together.clear();
    tokens = 0;
  };
  for (const model::Sequence& sequence : sequences) {
    const auto length = static_cast<std::int64_t>(sequence.ids.size());
    if (tokens + length > max_tokens) flush();
    together.push_back(sequence);
    tokens += length;
  }
  flush();
  return batches;
}

std::int64_t loss_tokens(const std::vector<model::TokenBatch>& batches) {
  std::int64_t scored = 0;
  for (const auto& batch : batches) {
    scored += batch.targets.ge(0).sum().item<std::int64_t>();
  }
  return scored;
}

}  // namespace fettle::sweep
