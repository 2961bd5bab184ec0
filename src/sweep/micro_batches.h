// SPDX-License-Identifier: Apache-2.0
// Cuts a set of sequences into micro-batches.
#pragma once

#include <cstdint>
#include <vector>

#include "model/layers/token_batch.h"
#include "ranks/shards.h"
#include "sweep/sequence_runs.h"

namespace fettle::sweep {

// Consecutive sequences together until another would pass `max_tokens`; a
// sequence longer than that is alone. Order is kept, so that micro-batch m,
// token i is a fixed function of the data and `max_tokens`. Throws UserError on
// a token id outside [0, vocab_size).
std::vector<model::TokenBatch> micro_batches(
    Sequences sequences, std::int64_t max_tokens, std::int64_t vocab_size);

// How a pass over data is divided among ranks.
struct Division {
  ranks::Team team = {};
  std::vector<std::int64_t> shard_ends = {};  // as in SweepOptions
};

// The same of this rank's shards, none across two of them.
struct OwnBatches {
  std::vector<model::TokenBatch> batches;
  // Of the same names in SweepOptions.
  std::vector<std::int64_t> shard_ends = {};
  std::int64_t first_token = 0;
  std::int64_t tokens = 0;
};
OwnBatches own_micro_batches(
    Sequences sequences,
    std::int64_t max_tokens,
    std::int64_t vocab_size,
    const ranks::Team& team);

// Scored positions (targets other than -100) of all micro-batches.
std::int64_t loss_tokens(const std::vector<model::TokenBatch>& batches);

}  // namespace fettle::sweep
