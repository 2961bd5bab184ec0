// SPDX-License-Identifier: Apache-2.0
// The options of multi-head latent attention out of config.json.
#pragma once

#include <cstdint>
#include <optional>

#include "core/json.h"
#include "model/family/model_config.h"

namespace fettle::model {

struct MlaDefaults {
  std::optional<std::int64_t> q_lora_rank;
  std::int64_t kv_lora_rank = 512;
  std::int64_t qk_nope_head_dim = 128;
  std::int64_t qk_rope_head_dim = 64;
  std::int64_t v_head_dim = 128;
};

// Adds latent attention, its rotary embedding of neighbouring pairs, and the
// scale of its softmax to what parse_common gave.
void parse_mla(
    const JsonObject& json, const MlaDefaults& defaults, ModelConfig& config);

}  // namespace fettle::model
