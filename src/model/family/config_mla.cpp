// SPDX-License-Identifier: Apache-2.0
#include "model/family/config_mla.h"

#include <fmt/format.h>

#include <cmath>

#include "model/family/config_rope.h"
#include "model/family/config_values.h"

namespace fettle::model {
namespace {

// YaRN's correction of the softmax: transformers applies it under every kind
// of rotary scaling that has `mscale_all_dim`.
double softmax_scale(const AttentionConfig& attention, const RopeConfig& rope) {
  const double scale = 1.0 / std::sqrt(static_cast<double>(attention.head_dim));
  if (!rope.mscale_all_dim || rope.factor <= 1.0) return scale;
  const double mscale =
      0.1 * *rope.mscale_all_dim * std::log(rope.factor) + 1.0;
  return scale * mscale * mscale;
}

}  // namespace

void parse_mla(
    const JsonObject& json, const MlaDefaults& defaults, ModelConfig& config) {
  AttentionConfig& attention = config.attention();
  attention.kind = AttentionKind::kMla;
  if (attention.kv_heads != attention.heads) {
    json.refuse(
        "num_key_value_heads",
        fmt::format(
            "is {}; latent attention has as many as 'num_attention_heads', {}",
            attention.kv_heads,
            attention.heads));
  }
  attention.q_lora_rank =
      read_optional_integer(json, {{"q_lora_rank"}, defaults.q_lora_rank})
          .value_or(0);
  attention.kv_lora_rank =
      read_integer(json, {{"kv_lora_rank"}, defaults.kv_lora_rank});
  attention.qk_nope_head_dim =
      read_integer(json, {{"qk_nope_head_dim"}, defaults.qk_nope_head_dim});
  const std::int64_t rotated =
      read_integer(json, {{"qk_rope_head_dim"}, defaults.qk_rope_head_dim});
  if (rotated % 2 != 0) {
    json.refuse(
        "qk_rope_head_dim", fmt::format("is {}; it must be even", rotated));
  }
  attention.head_dim = attention.qk_nope_head_dim + rotated;
  attention.v_head_dim =
      read_integer(json, {{"v_head_dim"}, defaults.v_head_dim});
  attention.qkv_bias = json.boolean_or("attention_bias", false);
  attention.o_bias = attention.qkv_bias;
  config.latent_norm_eps = 1e-6;
  attention.rope = parse_rope(json, {10000.0, rotated, config.max_position});
  attention.rope.pairing = RopePairing::kInterleaved;
  attention.softmax_scale = softmax_scale(attention, attention.rope);
}

}  // namespace fettle::model
