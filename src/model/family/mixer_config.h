// SPDX-License-Identifier: Apache-2.0
// What mixes the tokens of a layer with those before them: attention
// (attention_config.h), or what some layers have in its place.
#pragma once

#include <cstdint>

namespace fettle::model {

enum class MixerKind { kNone, kAttention, kShortConv, kGatedDelta };

// C · conv(B · x) with B, C and x projected from the layer's input (LFM2).
struct ShortConvConfig {
  std::int64_t width = 0;  // tokens that the convolution sees
  bool bias = false;       // of both projections and the convolution
};

// Gated DeltaNet (Yang et al. 2024): a state for each value head, which each
// token decays and corrects. Value heads share key heads in runs.
struct GatedDeltaConfig {
  std::int64_t key_heads = 0;
  std::int64_t value_heads = 0;  // a multiple of key_heads
  std::int64_t key_dim = 0;      // of a head
  std::int64_t value_dim = 0;    // of a head
  std::int64_t conv_width = 0;   // tokens that the convolution sees
  // Two input projections, whose rows lie grouped by key head, not four.
  bool grouped = false;

  std::int64_t key_size() const { return key_heads * key_dim; }
  std::int64_t value_size() const { return value_heads * value_dim; }
  // Channels of the convolution: queries, keys, values.
  std::int64_t channels() const { return 2 * key_size() + value_size(); }
};

}  // namespace fettle::model
