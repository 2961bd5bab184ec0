// SPDX-License-Identifier: Apache-2.0
// What a sweep takes: bytes by purpose, before any budget divides them.
#pragma once

#include <cstdint>

#include "model/family/model_config.h"
#include "model/weights/weight_form.h"
#include "sweep/plan.h"

namespace fettle::sweep {

// What is in memory whether it is in use or not.
struct Kept {
  bool globals = false;
  bool experts_apart = false;
};

struct Sizes {
  std::int64_t globals;  // that are held
  std::int64_t layers;   // of one in use
  std::int64_t ahead;    // of another that is being fetched
  std::int64_t staging, all_layers, per_token;
  std::int64_t head;  // once no layer is in use
  std::int64_t activations;
  std::int64_t cache;   // states of earlier tokens
  std::int64_t graphs;  // of all tokens in all layers
  std::int64_t stage;   // in RAM
};

Sizes sizes_of(
    const model::ModelConfig& config,
    const model::WeightForms& forms,
    const Workload& workload,
    const Kept& kept);

}  // namespace fettle::sweep
