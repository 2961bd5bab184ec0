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
bool has_mamba(Model, Layer layer) { return layer.mixer == MixerKind::kMamba; }
bool has_mamba_bias(Model config, Layer layer) {
  return has_mamba(config, layer) && config.mamba.bias;
}
bool has_convolution(Model config, Layer layer) {
  return has_short_conv(config, layer) || has_delta(config, layer) ||
         has_mamba(config, layer);
}
bool has_convolution_bias(Model config, Layer layer) {
  return has_short_conv_bias(config, layer) ||
         (has_mamba(config, layer) && config.mamba.conv_bias);
}

std::int64_t conv_channels(Model config, Layer layer) {
  if (has_mamba(config, layer)) return config.mamba.channels();
  return has_delta(config, layer) ? config.gated_delta.channels()
                                  : config.hidden_size;
}
std::int64_t conv_width(Model config, Layer layer) {
  if (has_mamba(config, layer)) return config.mamba.conv_width;
  return has_delta(config, layer) ? config.gated_delta.conv_width
                                  : config.short_conv.width;
}
Shape mamba_heads(Model config, Layer, Width) { return {config.mamba.heads}; }
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
     has_convolution_bias,
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
    {kMambaIn,
     "mamba_in",
     kLayer,
     kMatrix,
     kMambaIn,
     has_mamba,
     [](Model config, Layer, Width) {
       const MambaConfig& m = config.mamba;
       const std::int64_t rows = m.inner_size() + m.channels() + m.heads;
       return Shape{rows, config.hidden_size};
     }},
    {kMambaInBias,
     "mamba_in_bias",
     kLayer,
     kVector,
     kMambaInBias,
     has_mamba_bias,
     [](Model config, Layer, Width) {
       const MambaConfig& m = config.mamba;
       return Shape{m.inner_size() + m.channels() + m.heads};
     }},
    {kMambaLogRate,
     "mamba_log_rate",
     kLayer,
     kDecision,
     kMambaLogRate,
     has_mamba,
     mamba_heads},
    {kMambaStepBias,
     "mamba_step_bias",
     kLayer,
     kDecision,
     kMambaStepBias,
     has_mamba,
     mamba_heads},
    {kMambaSkip,
     "mamba_skip",
     kLayer,
     kDecision,
     kMambaSkip,
     has_mamba,
     mamba_heads},
    {kMambaNorm,
     "mamba_norm",
     kLayer,
     kVector,
     kMambaNorm,
     has_mamba,
     [](Model config, Layer, Width) {
       return Shape{config.mamba.inner_size()};
     }},
    {kMambaOut,
     "mamba_out",
     kLayer,
     kMatrix,
     kMambaOut,
     has_mamba,
     [](Model config, Layer, Width) {
       return Shape{config.hidden_size, config.mamba.inner_size()};
     }},
    {kMambaOutBias,
     "mamba_out_bias",
     kLayer,
     kVector,
     kMambaOutBias,
     has_mamba_bias,
     hidden},
});

}  // namespace

std::span<const RoleInfo> mixer_role_rows() { return kMixerRows; }

}  // namespace fettle::model
