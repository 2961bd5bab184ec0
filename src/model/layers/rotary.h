// SPDX-License-Identifier: Apache-2.0
// The angles of rotary position embedding.
// Source: transformers, modeling_rope_utils.py.
#pragma once

#include <ATen/ATen.h>

#include <cstdint>
#include <vector>

#include "model/family/model_config.h"
#include "model/layers/token_batch.h"

namespace fettle::model {

// The tables of a micro-batch, made once and shared by all layers.
struct RotaryTables {
  at::Tensor cos;  // [N, R/2] fp32, scaled by the attention factor
  at::Tensor sin;  // [N, R/2] fp32
};

// Tables for `positions` [N] of sequences at most `longest` tokens long (some
// scalings depend on it).
RotaryTables rotary_tables(
    const RopeConfig& rope, const at::Tensor& positions, std::int64_t longest);

// Tables for a whole micro-batch. Each sequence has its own length, so that its
// tables do not depend on what it is batched with.
RotaryTables rotary_tables(const RopeConfig& rope, const TokenBatch& tokens);

// The same for parts of sequences: `lengths` are those up to the parts' ends.
RotaryTables rotary_tables(
    const RopeConfig& rope,
    const TokenBatch& tokens,
    const std::vector<std::int64_t>& lengths);

}  // namespace fettle::model
