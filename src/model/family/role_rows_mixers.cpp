// SPDX-License-Identifier: Apache-2.0
#include <array>

#include "model/family/role_rows.h"

namespace fettle::model {

using namespace role_rows;

namespace {

bool has_short_conv(Model, Layer layer) {
  return layer.mixer == MixerKind::kShortConv;
}
bool has_short_conv_bias(Model config, Layer layer) {
  return has_short_conv(config, layer) && config.short_conv.bias;
}
bool has_delta(Model, Layer layer) {
  return layer.mixer == MixerKind::kGatedDelta;
}
bool has_plain_delta(Model config, Layer layer) {
  return has_delta(config, layer) && !config.gated_delta.grouped;
}
bool has_grouped_delta(Model config, Layer layer) {
  return has_delta(config, layer) && config.gated_delta.grouped;
}
bool has_convolution(Model config, Layer layer) {
  return has_short_conv(config, layer) || has_delta(config, layer);
}

std::int64_t conv_channels(Model config, Layer layer) {
  return has_delta(config, layer) ? config.gated_delta.channels()
                                  : config.hidden_size;
}
std::int64_t conv_width(Model config, Layer layer) {
  return has_delta(config, layer) ? config.gated_delta.conv_width
                                  : config.short_conv.width;
}
Shape delta_heads(Model config, Layer, Width) {
  return {config.gated_delta.value_heads};
}
Shape delta_head_rows(Model config, Layer, Width) {
  return {config.gated_delta.value_heads, config.hidden_size};
}

using enum Role;
using enum RoleScope;
using enum RoleKind;

constexpr auto kMixerRows = std::to_array<RoleInfo>({
    {kConvWeight,
     "conv_weight",
     kLayer,
     kVector,
     kConvWeight,
     has_convolution,
     [](Model config, Layer layer, Width) {
       return Shape{conv_channels(config, layer), conv_width(config, layer)};
     }},
    {kConvBias,
     "conv_bias",
     kLayer,
     kVector,
     kConvBias,
     has_short_conv_bias,
     [](Model config, Layer layer, Width) {
       return Shape{conv_channels(config, layer)};
     }},
    {kShortConvIn,
     "short_conv_in",
     kLayer,
     kMatrix,
     kShortConvIn,
     has_short_conv,
     [](Model config, Layer, Width) {
       return Shape{3 * config.hidden_size, config.hidden_size};
     }},
    {kShortConvInBias,
     "short_conv_in_bias",
     kLayer,
     kVector,
     kShortConvInBias,
     has_short_conv_bias,
     [](Model config, Layer, Width) { return Shape{3 * config.hidden_size}; }},
    {kShortConvOut,
     "short_conv_out",
     kLayer,
     kMatrix,
     kShortConvOut,
     has_short_conv,
     [](Model config, Layer, Width) {
       return Shape{config.hidden_size, config.hidden_size};
     }},
    {kShortConvOutBias,
     "short_conv_out_bias",
     kLayer,
     kVector,
     kShortConvOutBias,
     has_short_conv_bias,
     hidden},
    {kDeltaQkv,
     "delta_qkv",
     kLayer,
     kMatrix,
     kDeltaQkv,
     has_plain_delta,
     [](Model config, Layer, Width) {
       return Shape{config.gated_delta.channels(), config.hidden_size};
     }},
    {kDeltaGate,
     "delta_gate",
     kLayer,
     kMatrix,
     kDeltaQkv,
     has_plain_delta,
     [](Model config, Layer, Width) {
       return Shape{config.gated_delta.value_size(), config.hidden_size};
     }},
    {kDeltaBeta,
     "delta_beta",
     kLayer,
     kVector,
     kDeltaBeta,
     has_plain_delta,
     delta_head_rows},
    {kDeltaDecay,
     "delta_decay",
     kLayer,
     kVector,
     kDeltaDecay,
     has_plain_delta,
     delta_head_rows},
    {kDeltaQkvGate,
     "delta_qkv_gate",
     kLayer,
     kMatrix,
     kDeltaQkvGate,
     has_grouped_delta,
     [](Model config, Layer, Width) {
       const GatedDeltaConfig& d = config.gated_delta;
       return Shape{d.channels() + d.value_size(), config.hidden_size};
     }},
    {kDeltaBetaDecay,
     "delta_beta_decay",
     kLayer,
     kVector,
     kDeltaBetaDecay,
     has_grouped_delta,
     [](Model config, Layer, Width) {
       return Shape{2 * config.gated_delta.value_heads, config.hidden_size};
     }},
    {kDeltaLogRate,
     "delta_log_rate",
     kLayer,
     kDecision,
     kDeltaLogRate,
     has_delta,
     delta_heads},
    {kDeltaDecayBias,
     "delta_decay_bias",
     kLayer,
     kDecision,
     kDeltaDecayBias,
     has_delta,
     delta_heads},
    {kDeltaNorm,
     "delta_norm",
     kLayer,
     kVector,
     kDeltaNorm,
     has_delta,
     [](Model config, Layer, Width) {
       return Shape{config.gated_delta.value_dim};
     }},
    {kDeltaOut,
     "delta_out",
     kLayer,
     kMatrix,
     kDeltaOut,
     has_delta,
     [](Model config, Layer, Width) {
       return Shape{config.hidden_size, config.gated_delta.value_size()};
     }},
});

}  // namespace

std::span<const RoleInfo> mixer_role_rows() { return kMixerRows; }

}  // namespace fettle::model
