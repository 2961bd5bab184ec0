// SPDX-License-Identifier: Apache-2.0
#include "sweep/micro_batches.h"

#include <algorithm>
#include <iterator>
#include <numeric>

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

OwnBatches own_micro_batches(
    const std::vector<model::Sequence>& sequences,
    std::int64_t max_tokens,
    std::int64_t vocab_size,
    const ranks::Team& team) {
  std::vector<std::int64_t> lengths;
  for (const auto& sequence : sequences) {
    lengths.push_back(static_cast<std::int64_t>(sequence.ids.size()));
  }
  const auto starts = ranks::even_runs(lengths, team.shards);
  const ranks::Shards own = team.own();
  OwnBatches result;
  result.first_token = std::accumulate(
      lengths.begin(),
      lengths.begin() + static_cast<std::ptrdiff_t>(starts[own.first]),
      std::int64_t{0});
  for (std::int64_t s = own.first; s < own.first + own.count; ++s) {
    const std::vector<model::Sequence> shard(
        sequences.begin() + static_cast<std::ptrdiff_t>(starts[s]),
        sequences.begin() + static_cast<std::ptrdiff_t>(starts[s + 1]));
    auto batches = micro_batches(shard, max_tokens, vocab_size);
    for (const auto& batch : batches) result.tokens += batch.tokens();
    std::ranges::move(batches, std::back_inserter(result.batches));
    result.shard_ends.push_back(
        static_cast<std::int64_t>(result.batches.size()));
  }
  return result;
}

std::int64_t loss_tokens(const std::vector<model::TokenBatch>& batches) {
  std::int64_t scored = 0;
  for (const auto& batch : batches) {
    scored += batch.targets.ge(0).sum().item<std::int64_t>();
  }
  return scored;
}

}  // namespace fettle::sweep
