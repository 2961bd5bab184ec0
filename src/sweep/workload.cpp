// SPDX-License-Identifier: Apache-2.0
#include "sweep/workload.h"

#include <algorithm>

#include "sweep/data.h"
#include "sweep/plan.h"

namespace fettle::sweep {

void Workload::add(
    const std::vector<model::Sequence>& data, std::int64_t chunk_tokens) {
  const std::int64_t all = count_tokens(data);
  tokens =
      std::max(tokens, chunk_tokens > 0 ? std::min(all, chunk_tokens) : all);
  longest_sequence = std::max(longest_sequence, longest(data));
}

// Shards have the same number of tokens, but for a sequence at each end.
void Workload::divide(const ranks::Team& among) {
  const std::int64_t own = among.own().count;
  if (own == among.shards) return;
  tokens =
      std::min(tokens, tokens * own / among.shards + longest_sequence * own);
}

void Workload::add(const StageMemory& stage) {
  extra_bytes += stage.bytes;
  extra_vram_bytes += stage.device_bytes;
}

void Workload::add(const SweepPlan& other) {
  const Workload& its = other.workload;
  extra_bytes += other.ram_bytes() - other.runtime_bytes - other.stage_bytes;
  if (its.device.is_cpu()) return;
  extra_vram_bytes +=
      other.vram_bytes() - other.library_bytes - its.extra_vram_bytes;
}

}  // namespace fettle::sweep
