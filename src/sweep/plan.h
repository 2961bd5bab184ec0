// SPDX-License-Identifier: Apache-2.0
// Fits a sweep into a budget of memory before it starts, or says which budget
// would do.
#pragma once

#include <ATen/ATen.h>

#include <algorithm>
#include <cstdint>
#include <string>

#include "model/causal_lm.h"
#include "model/weights/model_reader.h"
#include "sweep/sweep.h"
#include "sweep/workload.h"

namespace fettle::sweep {

// Bytes by purpose. On a CPU all of them are RAM; on a device, what computes
// (globals, layers, working set) is VRAM and the rest RAM.
struct SweepPlan {
  Workload workload;
  std::int64_t micro_batch_tokens = 0;
  std::int64_t runtime_bytes = 0;   // program and libraries
  std::int64_t library_bytes = 0;   // libtorch's own, of a card
  bool hold_globals = false;        // embeddings and head: all the time
  bool experts_apart = false;       // read whenever they are computed
  std::int64_t global_bytes = 0;    // what is held outside the layers
  std::int64_t layer_bytes = 0;     // layer in use, and one being fetched
  bool read_ahead = false;          // whether one is
  std::int64_t staging_bytes = 0;   // in RAM, of a layer on its way to a card
  std::int64_t resident_bytes = 0;  // layers kept between sweeps
  std::int64_t working_bytes = 0;   // one micro-batch in one layer
  // Once no layer is in use: logits, and a head that isn't held.
  std::int64_t head_bytes = 0;
  std::int64_t cache_bytes = 0;            // states of the cached tokens
  std::int64_t card_activation_bytes = 0;  // boundary activations on a card
  std::int64_t activation_bytes = 0;       // boundary activations in RAM
  std::int64_t spilled_bytes = 0;          // boundary activations on disk
  std::int64_t graph_bytes =
      0;  // autograd graphs kept for backward; 0: recomputed
  std::int64_t stage_bytes = 0;  // what the stage itself keeps in RAM

  // The layer in use and what passes it, or after it the head.
  std::int64_t computing_bytes() const {
    return std::max(layer_bytes + working_bytes, head_bytes);
  }
  std::int64_t ram_bytes() const;
  std::int64_t vram_bytes() const;
  std::string summary() const;  // one line for people
  model::ModelOptions model_options() const;
  // For a Sweep that computes what was planned; `reporter` may be null.
  SweepOptions sweep_options(Reporter* reporter) const;
};

// Bytes of each token of a micro-batch while it passes a layer.
std::int64_t bytes_per_token(
    const model::ModelConfig& config, const Workload& workload);

// Bytes of the logits of `rows` tokens, and of what they are turned into.
std::int64_t logit_bytes(const model::ModelConfig& config, std::int64_t rows);

// Bytes of the activations between two layers of all tokens of a sweep.
std::int64_t boundary_bytes(
    const model::ModelConfig& config, const Workload& workload);

// The least --ram or --vram, in whole MiB, under which what is planned may come
// to `bytes`.
std::int64_t budget_for(std::int64_t bytes);

// The plan that takes the least memory, one layer at a time, of a model that
// may not exist yet: its weights lie as `forms` say.
SweepPlan least_plan(
    const model::ModelConfig& config,
    const model::WeightForms& forms,
    const Workload& workload);
SweepPlan least_plan(
    const model::ModelReader& reader, const Workload& workload);

// Whether plan_sweep would find room.
bool fits(
    const model::ModelReader& reader,
    const Workload& workload,
    const Budget& budget);

// Reads a layer while another is in use where there is room for two, unless all
// layers stay only where one is. Holds embeddings and head where only layers
// that could be kept make room for them. Takes experts apart where whole layers
// find no room, and in decoding also where they don't all stay. Throws
// UserError naming the smallest sufficient --ram or --vram when `budget` is
// less.
SweepPlan plan_sweep(
    const model::ModelConfig& config,
    const model::WeightForms& forms,
    const Workload& workload,
    const Budget& budget);
SweepPlan plan_sweep(
    const model::ModelReader& reader,
    const Workload& workload,
    const Budget& budget);

}  // namespace fettle::sweep
