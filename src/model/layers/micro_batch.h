// SPDX-License-Identifier: Apache-2.0
// The tokens that go through the layers together, and what all layers share.
#pragma once

#include <cstdint>
#include <vector>

#include "model/family/model_config.h"
#include "model/layers/rotary.h"
#include "model/layers/token_batch.h"

namespace fettle::model {

struct MicroBatch {
  TokenBatch tokens;                 // on the compute device
  std::vector<RotaryTables> rotary;  // of each of ModelConfig::attentions
  std::int64_t first_token = 0;      // the micro-batch's first in its step
};

// Each sequence has its own rotary tables, by its own length (some scalings
// depend on it), so that they do not depend on what it is batched with.
MicroBatch make_micro_batch(
    const ModelConfig& config, TokenBatch tokens, std::int64_t first_token = 0);

// A part of one sequence, `length` tokens long up to the part's end.
MicroBatch make_part_of_sequence(
    const ModelConfig& config, TokenBatch tokens, std::int64_t length);

}  // namespace fettle::model
