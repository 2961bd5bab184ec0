// SPDX-License-Identifier: Apache-2.0
// Cuts a set of sequences into runs of neighbours: of so many tokens, by the
// shards of a rank, or by what one sweep takes.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <vector>

#include "model/layers/token_batch.h"
#include "ranks/shards.h"

namespace fettle::sweep {

using Sequences = std::span<const model::Sequence>;

// Sequences [begin, end).
struct SequenceRun {
  std::size_t begin = 0;
  std::size_t end = 0;
  std::int64_t tokens = 0;
  std::size_t shard = 0;  // by its place among this rank's

  Sequences of(Sequences all) const { return all.subspan(begin, end - begin); }
};

// Consecutive sequences of `run` together until another would pass
// `max_tokens`; a sequence longer than that is alone.
std::vector<SequenceRun> cut(
    Sequences all, const SequenceRun& run, std::int64_t max_tokens);

// The shards of this rank, of about the same number of tokens each.
std::vector<SequenceRun> own_shards(Sequences all, const ranks::Team& team);

// This rank's sequences by the sweeps that pass them. A sweep takes runs of
// several shards together, at most `max_tokens` or one sequence, but each run
// is cut by its shard alone, so that it is the same on any number of ranks.
std::vector<std::vector<SequenceRun>> own_sweeps(
    Sequences all, const ranks::Team& team, std::int64_t max_tokens);

}  // namespace fettle::sweep
