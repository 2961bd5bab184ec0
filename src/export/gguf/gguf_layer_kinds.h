// SPDX-License-Identifier: Apache-2.0
// Architectures of llama.cpp that know factors around the layers, norms of what
// layers add, or layers of two kinds. Source: llama.cpp,
// src/models/granite.cpp, afmoe.cpp, gemma4.cpp and mellum.cpp, and
// conversion/.
#pragma once

#include <ATen/ATen.h>

#include <optional>
#include <string_view>

#include "export/gguf/gguf_keys.h"
#include "model/family/model_config.h"
#include "model/family/weight_roles.h"

namespace fettle::exporter {

inline constexpr std::string_view kGraniteArchitecture = "granitemoe";
inline constexpr std::string_view kGraniteHybridArchitecture = "granitehybrid";
inline constexpr std::string_view kAfmoeArchitecture = "afmoe";
inline constexpr std::string_view kGemmaArchitecture = "gemma4";
inline constexpr std::string_view kMellumArchitecture = "mellum";
// Each layer is a mixer or an MLP.
inline constexpr std::string_view kNemotronArchitecture = "nemotron_h_moe";

// Whether it knows Granite's factors.
bool is_granite(std::string_view architecture);

// Whether layers of the architecture come in two kinds, full and with a window.
bool has_layer_kinds(std::string_view architecture);

// The attention whose rotary embedding the keys of all layers tell: of those
// with a window, where the others know no positions.
const model::AttentionConfig& main_attention(const model::ModelConfig& config);

// Refuses what the architecture does not compute: other places of windows,
// other rotary embeddings.
void check_layer_kinds(
    const model::ModelConfig& config, std::string_view architecture);

void add_layer_kinds(
    const model::ModelConfig& config,
    std::string_view architecture,
    KeyList& keys);

// The name of a weight of a role that only these architectures have, {l}
// standing for the layer.
std::optional<std::string_view> layer_kinds_name(model::Role role);

// What the angles of full layers are divided by, [D / 2] fp32, where the
// architecture takes it from a tensor of the file; undefined elsewhere.
at::Tensor rotary_divisors(
    const model::ModelConfig& config, std::string_view architecture);

}  // namespace fettle::exporter
