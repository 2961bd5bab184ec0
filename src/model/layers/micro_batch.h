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

// Parts of sequences, each sequence as many tokens long up to its part's end as
// `lengths` says.
MicroBatch make_parts_of_sequences(
    const ModelConfig& config,
    TokenBatch tokens,
    const std::vector<std::int64_t>& lengths);

}  // namespace fettle::model
