// SPDX-License-Identifier: Apache-2.0
#include "export/gguf/gguf_layer_kinds.h"

#include <algorithm>
#include <array>
#include <cmath>
#include <utility>
#include <vector>

namespace fettle::exporter {
namespace {

using model::AttentionConfig;
using model::LayerConfig;
using model::ModelConfig;
using model::Role;

bool is_windowed(const LayerConfig& layer) { return layer.sliding_window > 0; }

// The attention of layers with a window, or of those without; the model's first
// where no layer is of that kind.
const AttentionConfig& attention_of_kind(
    const ModelConfig& config, bool windowed) {
  const auto found = std::ranges::find_if(
      config.layers,
      [&](const LayerConfig& layer) { return is_windowed(layer) == windowed; });
  return found == config.layers.end() ? config.attention()
                                      : config.attention_of(*found);
}

std::int64_t window_of(const ModelConfig& config) {
  std::int64_t window = 0;
  for (const LayerConfig& layer : config.layers) {
    window = std::max(window, layer.sliding_window);
  }
  return window;
}

void check_rooted(const ModelConfig& config) {
  const double root = std::sqrt(static_cast<double>(config.hidden_size));
  if (config.ends.embedding_multiplier != root) {
    refuse_shape("'mup_enabled' is false");
  }
}

void check_afmoe(const ModelConfig& config) {
  check_rooted(config);
  constexpr std::size_t kStep = 4;
  for (std::size_t l = 0; l < config.layers.size(); ++l) {
    if (is_windowed(config.layers[l]) == ((l + 1) % kStep != 0)) continue;
    refuse_shape("not each fourth layer, and no other, has full attention");
  }
  if (main_attention(config).rope.type != "default") {
    refuse_shape("layers with a window have rope scaling");
  }
}

void check_gemma(const ModelConfig& config) {
  const auto& sliding = attention_of_kind(config, true);
  const auto& full = attention_of_kind(config, false);
  if (window_of(config) == 0) refuse_shape("no layer has a window");
  if (sliding.rope.type != "default") {
    refuse_shape("layers with a window have rope scaling");
  }
  if (full.rope.type != "proportional" && full.rope.type != "default") {
    refuse_shape("full layers have rope scaling");
  }
  if (config.activation != model::Activation::kGeluTanh) {
    refuse_shape("'hidden_activation' is not gelu_pytorch_tanh");
  }
}

// Windowed layers turn by the same base, without YaRN.
void check_mellum(const ModelConfig& config) {
  const auto& sliding = attention_of_kind(config, true);
  const auto& full = attention_of_kind(config, false);
  if (window_of(config) == 0) return;
  if (sliding.rope.type != "default") {
    refuse_shape("layers with a window have rope scaling");
  }
  if (sliding.rope.theta != full.rope.theta) {
    refuse_shape("layers with a window have another 'rope_theta'");
  }
}

std::vector<bool> window_pattern(const ModelConfig& config) {
  std::vector<bool> pattern;
  for (const LayerConfig& layer : config.layers) {
    pattern.push_back(is_windowed(layer));
  }
  return pattern;
}

void add_granite(const ModelConfig& config, KeyList& keys) {
  keys.number("attention.scale", config.attention().softmax_scale);
  keys.number("embedding_scale", config.ends.embedding_multiplier);
  keys.number("residual_scale", config.block.residual_multiplier);
  keys.number("logit_scale", config.ends.logits_scaling);
}

void add_gemma(const ModelConfig& config, KeyList& keys) {
  const auto& sliding = attention_of_kind(config, true);
  keys.put("attention.sliding_window_pattern", window_pattern(config));
  keys.count("attention.key_length_swa", sliding.head_dim);
  keys.count("attention.value_length_swa", sliding.head_dim);
  keys.count("rope.dimension_count_swa", sliding.rope.dim);
  keys.number("rope.freq_base_swa", sliding.rope.theta);
  keys.count("attention.shared_kv_layers", 0);
  keys.count("embedding_length_per_layer_input", 0);
  if (config.ends.soft_cap > 0.0) {
    keys.number("final_logit_softcapping", config.ends.soft_cap);
  }
}

using Name = std::pair<Role, std::string_view>;

constexpr auto kNames = std::to_array<Name>({
    {Role::kAttentionOutNorm, "blk.{l}.post_attention_norm.weight"},
    {Role::kMlpOutNorm, "blk.{l}.post_ffw_norm.weight"},
    {Role::kAttentionGate, "blk.{l}.attn_gate.weight"},
    {Role::kDenseOutNorm, "blk.{l}.post_ffw_norm_1.weight"},
    {Role::kExpertsNorm, "blk.{l}.pre_ffw_norm_2.weight"},
    {Role::kExpertsOutNorm, "blk.{l}.post_ffw_norm_2.weight"},
    {Role::kLayerScalar, "blk.{l}.layer_output_scale.weight"},
    {Role::kRouterNorm, "blk.{l}.ffn_gate_inp.scale"},
    {Role::kExpertScale, "blk.{l}.ffn_down_exps.scale"},
});

}  // namespace

bool is_granite(std::string_view architecture) {
  return architecture == kGraniteArchitecture ||
         architecture == kGraniteHybridArchitecture;
}

bool has_layer_kinds(std::string_view architecture) {
  return architecture == kAfmoeArchitecture ||
         architecture == kGemmaArchitecture ||
         architecture == kMellumArchitecture;
}

const AttentionConfig& main_attention(const ModelConfig& config) {
  const AttentionConfig& full = attention_of_kind(config, false);
  return full.rope.dim > 0 ? full : attention_of_kind(config, true);
}

void check_layer_kinds(
    const ModelConfig& config, std::string_view architecture) {
  if (architecture == kAfmoeArchitecture) check_afmoe(config);
  if (architecture == kGemmaArchitecture) check_gemma(config);
  if (architecture == kMellumArchitecture) check_mellum(config);
}

void add_layer_kinds(
    const ModelConfig& config, std::string_view architecture, KeyList& keys) {
  if (is_granite(architecture)) add_granite(config, keys);
  if (architecture == kGemmaArchitecture) add_gemma(config, keys);
  if (has_layer_kinds(architecture) && window_of(config) > 0) {
    if (architecture == kMellumArchitecture) {
      keys.put("attention.sliding_window_pattern", window_pattern(config));
    }
    keys.count("attention.sliding_window", window_of(config));
  }
}

std::optional<std::string_view> layer_kinds_name(Role role) {
  const auto* const found = std::ranges::find(kNames, role, &Name::first);
  if (found == kNames.end()) return std::nullopt;
  return found->second;
}

at::Tensor rotary_divisors(
    const ModelConfig& config, std::string_view architecture) {
  if (architecture != kGemmaArchitecture) return {};
  // llama.cpp's own number for angles that do not turn.
  constexpr double kStill = 1e30;
  const model::RopeConfig& rope = attention_of_kind(config, false).rope;
  const bool part = rope.type == "proportional";
  const std::int64_t turning = part ? rope.angles : rope.dim / 2;
  at::Tensor divisors = at::full({rope.dim / 2}, kStill, at::kFloat);
  divisors.narrow(0, 0, turning).fill_(part ? rope.factor : 1.0);
  return divisors;
}

}  // namespace fettle::exporter
