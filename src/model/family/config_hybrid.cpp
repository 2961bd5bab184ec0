// SPDX-License-Identifier: Apache-2.0
#include "model/family/config_hybrid.h"

#include <fmt/format.h>

#include <array>

#include "model/family/config_mixers.h"

namespace fettle::model {
namespace {

constexpr std::array<MixerName, 2> kMixers = {
    {{"linear_attention", MixerKind::kGatedDelta},
     {"full_attention", MixerKind::kAttention}}};

GatedDeltaConfig parse_gated_delta(const JsonObject& json) {
  GatedDeltaConfig delta{
      .key_heads = read_integer(json, {{"linear_num_key_heads"}, 16}),
      .value_heads = read_integer(json, {{"linear_num_value_heads"}, 32}),
      .key_dim = read_integer(json, {{"linear_key_head_dim"}, 128}),
      .value_dim = read_integer(json, {{"linear_value_head_dim"}, 128}),
      .conv_width = parse_conv_width(json, {"linear_conv_kernel_dim", 4})};
  if (delta.value_heads % delta.key_heads != 0) {
    json.refuse(
        "linear_num_value_heads",
        fmt::format(
            "is {}, no multiple of 'linear_num_key_heads', {}",
            delta.value_heads,
            delta.key_heads));
  }
  return delta;
}

// Each so manieth layer has attention.
void place_attention(const JsonObject& json, ModelConfig& config) {
  const std::int64_t interval =
      read_integer(json, {{"full_attention_interval"}, 4});
  for (std::int64_t l = 0; l < config.num_layers(); ++l) {
    config.layers[l].mixer = (l + 1) % interval == 0 ? MixerKind::kAttention
                                                     : MixerKind::kGatedDelta;
  }
}

}  // namespace

ModelConfig parse_hybrid(
    const JsonObject& json, const HybridDefaults& defaults) {
  ModelConfig config = parse_common(
      json,
      {.vocab_size = defaults.vocab_size,
       .hidden_size = 2048,
       .layers = defaults.layers,
       .heads = 16,
       .kv_heads = 2,
       .max_position = 32768});
  parse_gqa(json, {.head_dim = 256, .partial_rotary = 0.25}, config);
  AttentionConfig& attention = config.attention();
  attention.qkv_bias = json.boolean_or("attention_bias", false);
  attention.o_bias = attention.qkv_bias;
  attention.qk_norm = QkNorm::kHead;
  attention.gate = OutputGate::kInQuery;
  config.norm_offset = 1.0;
  config.gated_delta = parse_gated_delta(json);
  // The convolution's activation too.
  require_value(json, "hidden_act", "silu");
  require_value(json, "sliding_window", nullptr);
  return config;
}

void finish_hybrid(const JsonObject& json, ModelConfig& config) {
  if (json.has("layer_types")) {
    parse_mixers(json, kMixers, config);
  } else {
    place_attention(json, config);
  }
  config.shared_expert = SharedExpert::kSigmoidGated;
  const std::int64_t shared =
      read_integer(json, {{"shared_expert_intermediate_size"}, 512});
  for (LayerConfig& layer : config.layers) {
    if (layer.sparse) layer.shared_width = shared;
  }
}

}  // namespace fettle::model
