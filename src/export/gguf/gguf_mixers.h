// SPDX-License-Identifier: Apache-2.0
// What a GGUF file says of layers without attention. Source: llama.cpp,
// models/qwen3next.cpp, qwen35moe.cpp, lfm2moe.cpp and granite-hybrid.cpp.
#pragma once

#include <string_view>

#include "export/gguf/gguf_keys.h"
#include "model/family/model_config.h"

namespace fettle::exporter {

// Refuses what llama.cpp computes otherwise in models with such layers.
void check_mixers(
    const model::ModelConfig& config, std::string_view architecture);

// The keys of models that have such layers; none of others.
void add_mixers(
    const model::ModelConfig& config,
    std::string_view architecture,
    KeyList& keys);

}  // namespace fettle::exporter
