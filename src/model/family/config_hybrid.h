// SPDX-License-Identifier: Apache-2.0
// What Qwen3-Next and Qwen3.5 have alike: layers with a gated delta rule and
// some with gated attention between them. Source: transformers 5.17,
// models/qwen3_next and models/qwen3_5_moe.
#pragma once

#include <cstdint>

#include "core/json.h"
#include "model/family/config_common.h"
#include "model/family/model_config.h"

namespace fettle::model {

struct HybridDefaults {
  std::int64_t vocab_size = 0;
  std::int64_t layers = 0;
};

// Sizes, gated attention, and the sizes of the delta rule.
ModelConfig parse_hybrid(
    const JsonObject& json, const HybridDefaults& defaults);

// Once the layers are sparse or dense: which mixes by which kind, and the
// shared expert of sparse ones.
void finish_hybrid(const JsonObject& json, ModelConfig& config);

}  // namespace fettle::model
