// SPDX-License-Identifier: Apache-2.0
#include "model/layers/layer_state.h"

#include "model/layers/state_size.h"

namespace fettle::model {

StateSize state_size(const ModelConfig& config, const LayerConfig& layer) {
  switch (layer.mixer) {
    case MixerKind::kAttention: {
      const AttentionConfig& a = config.attention_of(layer);
      return {
          .per_token = a.kind == AttentionKind::kMla
                           ? a.kv_lora_rank + a.rope.dim
                           : a.kv_heads * (a.head_dim + a.v_head_dim)};
    }
    case MixerKind::kShortConv:
      return {.tail = (config.short_conv.width - 1) * config.hidden_size};
    case MixerKind::kGatedDelta: {
      const GatedDeltaConfig& d = config.gated_delta;
      return {
          .tail = (d.conv_width - 1) * d.channels(),
          .recurrent = d.value_heads * d.key_dim * d.value_dim};
    }
    case MixerKind::kMamba: {
      const MambaConfig& m = config.mamba;
      return {
          .tail = (m.conv_width - 1) * m.channels(),
          .recurrent = m.inner_size() * m.state_dim};
    }
    case MixerKind::kNone:
      break;
  }
  return {};
}

std::int64_t state_bytes(
    const ModelConfig& config, std::int64_t tokens, at::ScalarType type) {
  if (tokens == 0) return 0;
  const auto bytes = static_cast<std::int64_t>(c10::elementSize(type));
  constexpr std::int64_t kFp32Bytes = 4;
  std::int64_t total = 0;
  for (const LayerConfig& layer : config.layers) {
    const StateSize size = state_size(config, layer);
    total += (tokens * size.per_token + size.tail) * bytes +
             size.recurrent * kFp32Bytes;
  }
  return total;
}

}  // namespace fettle::model
