// SPDX-License-Identifier: Apache-2.0
// What mixes the tokens of a layer with those before them: attention
// (attention_config.h), or what some layers have in its place.
#pragma once

#include <cstdint>
#include <limits>

namespace fettle::model {

enum class MixerKind { kNone, kAttention, kShortConv, kGatedDelta, kMamba };

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

// Mamba-2 (Dao and Gu 2024): a state for each head, which each token decays by
// its own step. Heads share B and C in groups.
struct MambaConfig {
  std::int64_t heads = 0;
  std::int64_t head_dim = 0;
  std::int64_t groups = 0;
  std::int64_t state_dim = 0;
  std::int64_t conv_width = 0;  // tokens that the convolution sees
  bool conv_bias = false;
  bool bias = false;             // of both projections
  std::int64_t norm_groups = 1;  // each normalised by itself
  double least_step = 0.0;       // of dt, behind its softplus
  double most_step = std::numeric_limits<double>::infinity();

  std::int64_t inner_size() const { return heads * head_dim; }
  // Channels of the convolution: inputs, B, C.
  std::int64_t channels() const {
    return inner_size() + 2 * groups * state_dim;
  }
};

}  // namespace fettle::model
