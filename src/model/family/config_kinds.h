// SPDX-License-Identifier: Apache-2.0
// Layers with a window and layers without, where they differ in more than the
// window.
#pragma once

#include <string_view>

#include "core/json.h"
#include "model/family/model_config.h"

namespace fettle::model {

inline constexpr std::string_view kFullType = "full_attention";
inline constexpr std::string_view kSlidingType = "sliding_attention";

// Gives layers with a window the attention `sliding`, and the others `full`.
void set_attentions(
    const AttentionConfig& full,
    const AttentionConfig& sliding,
    ModelConfig& config);

// The configuration with the rotary options of one type of layer, out of
// `rope_parameters` of both, for all. Throws UserError where these hold
// anything but options of the two types, each with its base.
Json with_rope_of(const JsonObject& json, std::string_view type);

}  // namespace fettle::model
