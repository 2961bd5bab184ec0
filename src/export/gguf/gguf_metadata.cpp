// SPDX-License-Identifier: Apache-2.0
#include "export/gguf/gguf_metadata.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <cmath>
#include <string_view>

#include "core/error.h"
#include "export/stock_layout.h"
#include "model/layers/rotary.h"

namespace fettle::exporter {
namespace {

using model::ModelConfig;

constexpr std::array<GgufFamily, 5> kGgufFamilies{{
    {"qwen3_moe", "qwen3moe", true, false, false},
    {"qwen2_moe", "qwen2moe", false, true, false},
    {"mixtral", "llama", true, false, true},
    {"olmoe", "olmoe", false, true, false},
    {"deepseek_v2", "deepseek2", std::nullopt, false, false},
}};

[[noreturn]] void refuse_shape(const std::string& why) {
  throw UserError(
      "export",
      "config.json",
      why +
          ", which llama.cpp does not compute for this family; use hf, "
          "compressed-tensors or gptq");
}

const GgufFamily& known_family(const ModelConfig& config) {
  const auto* const found =
      std::ranges::find(kGgufFamilies, config.family, &GgufFamily::family);
  if (found == kGgufFamilies.end()) {
    throw UserError(
        "export",
        config.family,
        "llama.cpp has no architecture for it that Fettle knows; use hf");
  }
  return *found;
}

bool is_mla(const ModelConfig& config) {
  return config.attention().kind == model::AttentionKind::kMla;
}

// By what cosines and sines are multiplied.
double rotary_factor(const model::RopeConfig& rope) {
  return model::rotary_tables(rope, at::zeros({1}, at::kLong), 1)
      .cos.flatten()[0]
      .item<double>();
}

void check_rope(const ModelConfig& config) {
  const model::RopeConfig& rope = config.attention().rope;
  const double plain = 1 / std::sqrt(config.attention().head_dim);
  const double scale = config.attention().softmax_scale / plain;
  const bool plain_scale = std::abs(scale - 1) < 1e-6;
  if (rope.type == "yarn") {
    if (!rope.truncate) refuse_shape("'truncate' of rope scaling is false");
    if (!is_mla(config)) return;
    // There, one key tells the factor of both rotation and softmax.
    if (!rope.mscale_all_dim || std::abs(rotary_factor(rope) - 1) > 1e-6) {
      refuse_shape("'mscale' of rope scaling is not 'mscale_all_dim'");
    }
    return;
  }
  // Latent attention scales its softmax by any factor, as for YaRN.
  const bool linear = rope.type == "linear" && !is_mla(config);
  if (rope.type != "default" && !linear) {
    refuse_shape(fmt::format("rope scaling is '{}'", rope.type));
  }
  if (!plain_scale) refuse_shape("'mscale_all_dim' is set without yarn");
}

void check_attention(const ModelConfig& config, std::string_view name) {
  const model::AttentionConfig& a = config.attention();
  if (a.clip_qkv) refuse_shape("'clip_qkv' is set");
  if (a.o_bias || (a.qkv_bias && name != "qwen2moe")) {
    refuse_shape("'attention_bias' is true");
  }
  if (is_mla(config)) {
    const std::int64_t layers = config.num_layers();
    const bool lite = layers == 26 || layers == 27 ||
                      (layers == 48 && config.vocab_size == 128256);
    if (a.q_lora_rank > 0 && lite) {
      refuse_shape(fmt::format("'q_lora_rank' is set in {} layers", layers));
    }
    if (config.latent_norm_eps != config.norm_eps) {
      refuse_shape("'rms_norm_eps' is not 1e-6, that of the latents");
    }
    return;
  }
  const bool wide = a.heads * a.head_dim == config.hidden_size;
  if ((name == "qwen2moe" || name == "olmoe") && !wide) {
    refuse_shape("heads together are not 'hidden_size' wide");
  }
  if (name == "olmoe" && a.kv_heads != a.heads) {
    refuse_shape("'num_key_value_heads' is less than the heads");
  }
}

void check_layers(const ModelConfig& config, const GgufFamily& family) {
  const bool mla = is_mla(config);
  bool sparse = false;
  for (const model::LayerConfig& layer : config.layers) {
    if (layer.sliding_window > 0) refuse_shape("'sliding_window' is set");
    sparse |= layer.sparse;
    if (!layer.sparse && (sparse || !mla)) {
      refuse_shape("a layer is dense");
    }
  }
  if (!sparse) refuse_shape("all layers are dense");
  if (family.renormalizes &&
      *family.renormalizes != config.router.renormalize) {
    refuse_shape(
        fmt::format("'norm_topk_prob' is {}", config.router.renormalize));
  }
  if (config.attentions.size() > 1) {
    refuse_shape("layers differ in their attention");
  }
  if (config.router.groups > 1) refuse_shape("experts are chosen in groups");
  if (mla && widest(config).shared == 0) {
    refuse_shape("there is no shared expert");
  }
}

class KeyList {
 public:
  explicit KeyList(std::string_view architecture) : prefix_(architecture) {}

  void count(std::string_view key, std::int64_t value) {
    put(key, static_cast<std::uint32_t>(value));
  }
  void number(std::string_view key, double value) {
    put(key, static_cast<float>(value));
  }
  void put(std::string_view key, GgufValue value) {
    keys_.emplace_back(fmt::format("{}.{}", prefix_, key), std::move(value));
  }
  void general(std::string_view key, GgufValue value) {
    keys_.emplace_back(fmt::format("general.{}", key), std::move(value));
  }
  GgufKeys take() { return std::move(keys_); }

 private:
  std::string prefix_;
  GgufKeys keys_;
};

void add_rope(const ModelConfig& config, KeyList& keys) {
  const model::RopeConfig& rope = config.attention().rope;
  keys.number("rope.freq_base", rope.theta);
  keys.count("rope.dimension_count", rope.dim);
  if (rope.type == "default") return;
  keys.put("rope.scaling.type", rope.type);
  keys.number("rope.scaling.factor", rope.factor);
  if (rope.type == "linear") return;
  keys.count(
      "rope.scaling.original_context_length", rope.original_max_position);
  keys.number("rope.scaling.yarn_beta_fast", rope.beta_fast);
  keys.number("rope.scaling.yarn_beta_slow", rope.beta_slow);
  if (is_mla(config)) {
    keys.number("rope.scaling.yarn_log_multiplier", 0.1 * *rope.mscale_all_dim);
    return;
  }
  // The program multiplies by YaRN's own factor too.
  const double own = 1 + 0.1 * std::log(std::max(rope.factor, 1.0));
  keys.number("rope.scaling.attn_factor", rotary_factor(rope) / own);
}

void add_attention(const ModelConfig& config, KeyList& keys) {
  const model::AttentionConfig& a = config.attention();
  keys.count("attention.head_count", a.heads);
  keys.count("attention.head_count_kv", a.kv_heads);
  keys.count("attention.key_length", a.head_dim);
  keys.count("attention.value_length", a.v_head_dim);
  keys.number("attention.layer_norm_rms_epsilon", config.norm_eps);
  if (!is_mla(config)) return;
  keys.count("attention.kv_lora_rank", a.kv_lora_rank);
  keys.count("attention.q_lora_rank", a.q_lora_rank);
}

void add_experts(
    const ModelConfig& config, std::string_view name, KeyList& keys) {
  const MlpWidths widths = widest(config);
  const auto sparse = std::ranges::find_if(
      config.layers, [](const model::LayerConfig& l) { return l.sparse; });
  const bool own_width = name != "llama" && name != "olmoe";
  keys.count(
      "feed_forward_length", widths.dense > 0 ? widths.dense : widths.expert);
  keys.count("expert_count", sparse->num_experts());
  keys.count("expert_used_count", sparse->top_k);
  if (own_width) keys.count("expert_feed_forward_length", widths.expert);
  if (name == "qwen2moe") {
    keys.count("expert_shared_feed_forward_length", widths.shared);
  }
  if (name != "deepseek2") return;
  keys.count("leading_dense_block_count", sparse - config.layers.begin());
  keys.count("expert_shared_count", widths.shared / widths.expert);
  keys.number("expert_weights_scale", config.router.scale);
  keys.put("expert_weights_norm", config.router.renormalize);
  constexpr std::int64_t kSoftmax = 1;
  keys.count("expert_gating_func", kSoftmax);
}

}  // namespace

const GgufFamily& gguf_family(const ModelConfig& config) {
  const GgufFamily& family = known_family(config);
  check_attention(config, family.architecture);
  check_layers(config, family);
  check_rope(config);
  return family;
}

GgufKeys gguf_shape_keys(
    const ModelConfig& config,
    const std::string& model_name,
    std::uint32_t file_type) {
  const std::string name(gguf_family(config).architecture);
  KeyList keys(name);
  keys.general("architecture", name);
  keys.general("name", model_name);
  keys.general("quantization_version", std::uint32_t{2});
  keys.general("file_type", file_type);
  keys.count("vocab_size", config.vocab_size);
  keys.count("block_count", config.num_layers());
  keys.count("context_length", config.max_position);
  keys.count("embedding_length", config.hidden_size);
  add_attention(config, keys);
  add_rope(config, keys);
  add_experts(config, name, keys);
  return keys.take();
}

}  // namespace fettle::exporter
