// SPDX-License-Identifier: Apache-2.0
#include "sweep/sequence_runs.h"

#include <numeric>

namespace fettle::sweep {

std::vector<SequenceRun> cut(
    Sequences all, const SequenceRun& run, std::int64_t max_tokens) {
  std::vector<SequenceRun> runs;
  for (std::size_t s = run.begin; s < run.end; ++s) {
    const auto length = static_cast<std::int64_t>(all[s].ids.size());
    if (runs.empty() || runs.back().tokens + length > max_tokens) {
      runs.push_back({s, s, 0, run.shard});
    }
    runs.back().end = s + 1;
    runs.back().tokens += length;
  }
  return runs;
}

std::vector<SequenceRun> own_shards(Sequences all, const ranks::Team& team) {
  std::vector<std::int64_t> lengths;
  for (const model::Sequence& sequence : all) {
    lengths.push_back(static_cast<std::int64_t>(sequence.ids.size()));
  }
  const auto starts = ranks::even_runs(lengths, team.shards);
  const ranks::Shards own = team.own();
  std::vector<SequenceRun> shards;
  for (std::int64_t s = own.first; s < own.first + own.count; ++s) {
    const auto at = [&](std::size_t start) {
      return lengths.begin() + static_cast<std::ptrdiff_t>(start);
    };
    shards.push_back(
        {starts[s],
         starts[s + 1],
         std::accumulate(at(starts[s]), at(starts[s + 1]), std::int64_t{0}),
         shards.size()});
  }
  return shards;
}

std::vector<std::vector<SequenceRun>> own_sweeps(
    Sequences all, const ranks::Team& team, std::int64_t max_tokens) {
  std::vector<std::vector<SequenceRun>> sweeps;
  std::int64_t tokens = 0;
  for (const SequenceRun& shard : own_shards(all, team)) {
    for (const SequenceRun& run : cut(all, shard, max_tokens)) {
      if (sweeps.empty() || tokens + run.tokens > max_tokens) {
        sweeps.emplace_back();
        tokens = 0;
      }
      sweeps.back().push_back(run);
      tokens += run.tokens;
    }
  }
  return sweeps;
}

}  // namespace fettle::sweep
