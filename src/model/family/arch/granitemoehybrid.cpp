// SPDX-License-Identifier: Apache-2.0
// Granite 4: Granite's mixture with Mamba-2 in most layers, and attention that
// knows no positions in the others. Source: transformers 5.17,
// models/granitemoehybrid.
#include <array>

#include "model/family/arch/families.h"
#include "model/family/arch/granite_rows.h"
#include "model/family/arch/mamba_rows.h"
#include "model/family/arch/shared_rows.h"
#include "model/family/config_granite.h"
#include "model/family/config_mamba.h"
#include "model/family/config_mixers.h"

namespace fettle::model {
namespace {

constexpr std::array<MixerName, 4> kMixers = {
    {{"linear_attention", MixerKind::kMamba},
     {"mamba", MixerKind::kMamba},
     {"full_attention", MixerKind::kAttention},
     {"attention", MixerKind::kAttention}}};

std::int64_t head_dim(const JsonObject& json, std::int64_t inner_size) {
  constexpr std::string_view kKey = "mamba_d_head";
  const std::int64_t heads = read_integer(json, {{"mamba_n_heads"}, 128});
  if (!json.has(kKey) || is_text(json.at(kKey), "auto")) {
    return inner_size / heads;
  }
  return read_integer(json, {{kKey}, {}});
}

void parse_mamba(const JsonObject& json, ModelConfig& config) {
  const std::int64_t expand = read_integer(json, {{"mamba_expand"}, 2});
  MambaConfig& m = config.mamba;
  m.heads = read_integer(json, {{"mamba_n_heads"}, 128});
  m.head_dim = head_dim(json, expand * config.hidden_size);
  m.groups = read_integer(json, {{"mamba_n_groups"}, 1});
  m.state_dim = read_integer(json, {{"mamba_d_state"}, 256});
  m.conv_width = parse_conv_width(json, {"mamba_d_conv", 4});
  m.conv_bias = read_flag(json, "mamba_conv_bias", true);
  m.bias = read_flag(json, "mamba_proj_bias", false);
  parse_step_limits(json, m);
  check_mamba(json, config, expand);
}

// Without a type, attention knows no positions.
void parse_positions(const JsonObject& json, AttentionConfig& attention) {
  constexpr std::string_view kKey = "position_embedding_type";
  const std::int64_t longest = attention.rope.max_position;
  if (!json.has(kKey) || json.at(kKey).is_null()) {
    attention.rope = {};
    attention.rope.max_position = longest;
  } else {
    require_value(json, kKey, "rope");
  }
}

ModelConfig parse(const JsonObject& json) {
  ModelConfig config = parse_granite(json);
  parse_positions(json, config.attention());
  parse_mamba(json, config);
  place_granite_experts(
      json, read_integer(json, {{kGraniteSharedKey}, 1024, 0}), config);
  if (json.has("layer_types") && !json.at("layer_types").is_null()) {
    parse_mixers(json, kMixers, config);
  } else {
    for (LayerConfig& layer : config.layers) layer.mixer = MixerKind::kMamba;
  }
  return config;
}

constexpr auto kWeights = joined(
    kFirstRows,
    kGroupedRows,
    kMambaRows,
    kNormRows,
    kGraniteRouterRows,
    kGraniteExpertRows,
    kGraniteSharedRows,
    kLastRows);

}  // namespace

Family granitemoehybrid_family() {
  return {
      .model_type = "granitemoehybrid",
      .parse = parse,
      .write_uniform = write_experts_by<granite_expert_keys>,
      .weights = kWeights,
      .shared_key = kGraniteSharedKey,
      .shared_in_neurons = true};
}

}  // namespace fettle::model
