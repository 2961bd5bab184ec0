// SPDX-License-Identifier: Apache-2.0
// The token mixers of a model's layers out of config.json.
#pragma once

#include <cstdint>
#include <span>
#include <string_view>

#include "core/json.h"
#include "model/family/model_config.h"

namespace fettle::model {

// A kind of mixer as a family calls it.
struct MixerName {
  std::string_view name;
  MixerKind kind;
};

// Gives each layer the mixer that `layer_types` names. Refuses its absence,
// another number of layers, and names that are not among `names`.
void parse_mixers(
    const JsonObject& json,
    std::span<const MixerName> names,
    ModelConfig& config);

struct ConvolutionKey {
  std::string_view name;
  std::int64_t fallback;
};

// How many tokens a convolution sees: as many as its kernels compute.
std::int64_t parse_conv_width(
    const JsonObject& json, const ConvolutionKey& key);

}  // namespace fettle::model
