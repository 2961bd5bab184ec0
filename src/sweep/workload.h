// SPDX-License-Identifier: Apache-2.0
// What a stage asks of a sweep and keeps beside it, and what it may take.
#pragma once

#include <ATen/ATen.h>

#include <cstdint>
#include <filesystem>
#include <optional>
#include <vector>

#include "model/layers/token_batch.h"
#include "ranks/shards.h"

namespace fettle::sweep {

struct SweepPlan;

struct Budget {
  std::optional<std::int64_t> ram;   // bytes; none: half of what is free
  std::optional<std::int64_t> vram;  // bytes; of a sweep on a card
};

// Bytes that a stage takes beside its sweep: in all, and of that on the
// card where one computes.
struct StageMemory {
  std::int64_t bytes = 0;
  std::int64_t device_bytes = 0;
};

struct Workload {
  std::int64_t tokens = 0;            // of one sweep
  std::int64_t longest_sequence = 0;  // tokens
  bool backward = false;
  bool keep_packed = false;  // of few tokens, multiplied by packed weights
  // Embeddings and head are to be in memory all the time: they change.
  bool hold_globals = false;
  // Experts may be read one by one (CausalLm's experts_apart): nothing changes
  // them, nor looks at all at once.
  bool takes_experts_apart = false;
  std::int64_t cached_tokens = 0;     // whose states are held: decoding
  std::int64_t cached_sequences = 1;  // of so many tokens each
  // Nothing is asked of the head.
  bool headless = false;
  // Rows whose logits exist at one time; 0: as many as losses are made of.
  std::int64_t logit_rows = 0;
  std::int64_t extra_bytes = 0;       // what the stage itself keeps in RAM
  std::int64_t extra_vram_bytes = 0;  // and on a card, where that computes
  // Bytes that the stage adds in RAM where experts are not apart.
  std::int64_t extra_whole_bytes = 0;
  // Bytes that the stage adds where the graphs of all layers are kept.
  std::int64_t extra_graph_bytes = 0;
  at::Device device = at::kCPU;
  at::ScalarType compute_type = at::kFloat;
  // Most tokens of a micro-batch; a longer sequence is one by itself.
  std::int64_t micro_batch_tokens = 4096;
  std::filesystem::path scratch = std::filesystem::temp_directory_path();
  ranks::Team team = {};  // which sweeps are divided among

  // Makes room for sweeps over `data` too, of at most `chunk_tokens` at a time;
  // 0: of all at once.
  void add(
      const std::vector<model::Sequence>& data, std::int64_t chunk_tokens = 0);
  void add(const StageMemory& stage);
  // Leaves the share of a rank of sweeps that are divided.
  void divide(const ranks::Team& among);
  // Makes room for another model's sweep beside this one.
  void add(const SweepPlan& other);
};

}  // namespace fettle::sweep
