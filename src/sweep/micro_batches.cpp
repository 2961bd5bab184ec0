// SPDX-License-Identifier: Apache-2.0
#include "sweep/micro_batches.h"

#include <algorithm>
#include <iterator>

namespace fettle::sweep {

std::vector<model::TokenBatch> micro_batches(
    Sequences sequences, std::int64_t max_tokens, std::int64_t vocab_size) {
  std::vector<model::TokenBatch> batches;
  for (const SequenceRun& run :
       cut(sequences, {0, sequences.size()}, max_tokens)) {
    const Sequences together = run.of(sequences);
    batches.push_back(
        model::pack({together.begin(), together.end()}, vocab_size));
  }
  return batches;
}

OwnBatches own_micro_batches(
    Sequences sequences,
    std::int64_t max_tokens,
    std::int64_t vocab_size,
    const ranks::Team& team) {
  const auto shards = own_shards(sequences, team);
  OwnBatches result;
  for (const auto& before : sequences.first(shards.front().begin)) {
    result.first_token += static_cast<std::int64_t>(before.ids.size());
  }
  for (const SequenceRun& shard : shards) {
    result.tokens += shard.tokens;
    std::ranges::move(
        micro_batches(shard.of(sequences), max_tokens, vocab_size),
        std::back_inserter(result.batches));
    result.shard_ends.push_back(std::ssize(result.batches));
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
