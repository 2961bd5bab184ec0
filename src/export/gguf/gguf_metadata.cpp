// SPDX-License-Identifier: Apache-2.0
#include "export/gguf/gguf_metadata.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <cmath>
#include <iterator>
#include <string_view>

#include "core/error.h"
#include "export/gguf/gguf_keys.h"
#include "export/gguf/gguf_layer_kinds.h"
#include "export/gguf/gguf_mixers.h"
#include "export/stock_layout.h"
#include "model/layers/rotary.h"

namespace fettle::exporter {
namespace {

using model::ModelConfig;

constexpr auto kGgufFamilies = std::to_array<GgufFamily>({
    {.family = "qwen3_moe", .architecture = "qwen3moe", .renormalizes = true},
    {.family = "qwen2_moe",
     .architecture = "qwen2moe",
     .renormalizes = false,
     .demands_head = true},
    {.family = "mixtral",
     .architecture = "llama",
     .renormalizes = true,
     .pairs_rotary = true},
    {.family = "olmoe",
     .architecture = "olmoe",
     .renormalizes = false,
     .demands_head = true},
    {.family = "deepseek_v2",
     .architecture = "deepseek2",
     .has_dense = true,
     .counts_shared = true},
    {.family = "deepseek_v3",
     .architecture = "deepseek2",
     .has_dense = true,
     .counts_shared = true},
    {.family = "glm4_moe_lite",
     .architecture = "deepseek2",
     .has_dense = true,
     .counts_shared = true},
    {.family = "glm4_moe",
     .architecture = "glm4moe",
     .has_dense = true,
     .counts_shared = true},
    {.family = "dots1",
     .architecture = "dots1",
     .demands_head = true,
     .has_dense = true,
     .counts_shared = true},
    {.family = "ernie4_5_moe",
     .architecture = "ernie4_5-moe",
     .renormalizes = true,
     .has_dense = true},
    {.family = "gpt_oss",
     .architecture = "gpt-oss",
     .demands_head = true,
     .activation = model::Activation::kClampedSwiglu,
     .alternates = true,
     .has_biases = true},
    {.family = "lfm2_moe",
     .architecture = "lfm2moe",
     .renormalizes = true,
     .has_dense = true},
    {.family = "qwen3_next", .architecture = "qwen3next", .renormalizes = true},
    {.family = "qwen3_5_moe_text",
     .architecture = "qwen35moe",
     .renormalizes = true,
     .tiles_heads = true},
    {.family = "minimax_m2",
     .architecture = "minimax-m2",
     .renormalizes = true,
     .demands_head = true},
    {.family = "granitemoe",
     .architecture = kGraniteArchitecture,
     .pairs_rotary = true},
    {.family = "granitemoeshared",
     .architecture = kGraniteArchitecture,
     .pairs_rotary = true},
    {.family = "granitemoehybrid",
     .architecture = kGraniteHybridArchitecture,
     .pairs_rotary = true},
    {.family = "afmoe",
     .architecture = kAfmoeArchitecture,
     .renormalizes = true,
     .demands_head = true,
     .has_dense = true,
     .counts_shared = true},
    {.family = "mellum",
     .architecture = kMellumArchitecture,
     .renormalizes = true,
     .demands_head = true},
    {.family = "gemma4_text",
     .architecture = kGemmaArchitecture,
     .renormalizes = true},
    {.family = "nemotron_h",
     .architecture = kNemotronArchitecture,
     .activation = model::Activation::kRelu2},
});

constexpr std::string_view kErnie = "ernie4_5-moe";
// Sums of weights below it are taken for it.
constexpr double kLeastSum = 6.103515625e-5;

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

[[noreturn]] void refuse_inexact(const std::string& why) {
  throw UserError(
      "export",
      "config.json",
      why +
          "; use hf, compressed-tensors or gptq, or export with --nearest to "
          "have it so");
}

void check_rope(
    const ModelConfig& config,
    std::string_view architecture,
    const GgufTolerance& tolerance) {
  const model::RopeConfig& rope = main_attention(config).rope;
  const double plain = 1 / std::sqrt(config.attention().head_dim);
  const double scale = config.attention().softmax_scale / plain;
  const bool plain_scale =
      std::abs(scale - 1) < 1e-6 || is_granite(architecture);
  if (rope.type == "yarn") {
    if (!rope.truncate && !tolerance.nearest) {
      refuse_inexact(
          "'truncate' of rope scaling is false, where llama.cpp rounds the "
          "bounds of YaRN's ramp to whole dimensions");
    }
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

void check_latent_attention(
    const ModelConfig& config, const GgufTolerance& tolerance) {
  const std::int64_t layers = config.num_layers();
  const bool lite = layers == 26 || layers == 27 ||
                    (layers == 48 && config.vocab_size == 128256);
  if (config.attention().q_lora_rank > 0 && lite) {
    refuse_shape(fmt::format("'q_lora_rank' is set in {} layers", layers));
  }
  if (config.attention().rope.pairing != model::RopePairing::kInterleaved) {
    refuse_shape("'rope_interleave' is false");
  }
  if (config.latent_norm_eps == config.norm_eps || tolerance.nearest) return;
  refuse_inexact(
      "'rms_norm_eps' is not 1e-6, that of the latents' norms, where llama.cpp "
      "takes it too");
}

void check_attention(
    const ModelConfig& config,
    const GgufFamily& family,
    const GgufTolerance& tolerance) {
  const model::AttentionConfig& a = config.attention();
  const std::string_view name = family.architecture;
  if (a.clip_qkv) refuse_shape("'clip_qkv' is set");
  if (family.has_biases) {
    if (!a.qkv_bias) refuse_shape("'attention_bias' is false");
    return;
  }
  const bool biased = name == "qwen2moe" || name == "glm4moe";
  if (a.o_bias || (a.qkv_bias && !biased)) {
    refuse_shape("'attention_bias' is true");
  }
  if (name == "glm4moe" && !a.qkv_bias) {
    refuse_shape("'attention_bias' is false");
  }
  if (is_mla(config)) return check_latent_attention(config, tolerance);
  const bool wide = a.heads * a.head_dim == config.hidden_size;
  if ((name == "qwen2moe" || name == "olmoe" || name == "lfm2moe") && !wide) {
    refuse_shape("heads together are not 'hidden_size' wide");
  }
  if ((name == "olmoe" || name == "dots1") && a.kv_heads != a.heads) {
    refuse_shape("'num_key_value_heads' is less than the heads");
  }
}

// The first sparse layer; the number of layers, if there is none.
std::int64_t first_sparse(const ModelConfig& config) {
  const auto found =
      std::ranges::find(config.layers, true, &model::LayerConfig::sparse);
  return found - config.layers.begin();
}

void check_windows(const ModelConfig& config, const GgufFamily& family) {
  if (has_layer_kinds(family.architecture)) return;
  for (std::int64_t l = 0; l < config.num_layers(); ++l) {
    const bool windowed = config.layers[l].sliding_window > 0;
    if (windowed && !family.alternates) refuse_shape("'sliding_window' is set");
    if (family.alternates && windowed != (l % 2 == 0)) {
      refuse_shape(
          fmt::format("layer {} has {} window", l, windowed ? "a" : "no"));
    }
  }
}

// Whether a layer is dense where the architecture knows none.
bool has_strange_dense(
    const ModelConfig& config,
    const GgufFamily& family,
    std::int64_t first_sparse) {
  if (family.architecture == kNemotronArchitecture) {
    return std::ranges::any_of(config.layers, &model::LayerConfig::has_dense);
  }
  const bool follows = std::ranges::all_of(
      config.layers.begin() + first_sparse,
      config.layers.end(),
      &model::LayerConfig::sparse);
  return (first_sparse > 0 && !family.has_dense) || !follows;
}

void check_layers(const ModelConfig& config, const GgufFamily& family) {
  check_windows(config, family);
  const std::int64_t first = first_sparse(config);
  if (first == config.num_layers()) refuse_shape("all layers are dense");
  if (has_strange_dense(config, family, first)) {
    refuse_shape("a layer is dense");
  }
  const bool gelu = family.architecture == kGemmaArchitecture;
  if (config.activation != family.activation && !gelu) {
    refuse_shape("'hidden_act' is not silu");
  }
  const bool kinds = has_layer_kinds(family.architecture);
  if (config.attentions.size() > 1 && !kinds) {
    refuse_shape("layers differ in their attention");
  }
  if (family.counts_shared && widest(config).shared == 0) {
    refuse_shape("there is no shared expert");
  }
}

void check_router(const ModelConfig& config, const GgufFamily& family) {
  const model::RouterConfig& router = config.router;
  if (family.renormalizes && *family.renormalizes != router.renormalize) {
    refuse_shape(fmt::format("'norm_topk_prob' is {}", router.renormalize));
  }
  if (router.least_sum > kLeastSum) {
    refuse_shape(fmt::format("'moe_norm_min' is {}", router.least_sum));
  }
  const bool known =
      router.group_score == model::GroupScore::kTopTwoSum &&
      router.outside_groups == model::OutsideGroups::kMinusInfinity;
  if (router.groups > 1 && !known) refuse_shape("experts are chosen in groups");
}

void add_rope(const ModelConfig& config, KeyList& keys) {
  const model::RopeConfig& rope = main_attention(config).rope;
  keys.number("rope.freq_base", rope.theta);
  const bool turns = rope.dim > 0;
  keys.count(
      "rope.dimension_count", turns ? rope.dim : config.attention().head_dim);
  // The latter by a tensor of the file.
  if (rope.type == "default" || rope.type == "proportional") return;
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

// A list where layers differ, or those without attention have none.
GgufValue heads_of_keys(const ModelConfig& config) {
  const std::string_view name = known_family(config).architecture;
  if (name != "lfm2moe" && name != kGraniteHybridArchitecture &&
      name != kNemotronArchitecture && name != kGemmaArchitecture) {
    return static_cast<std::uint32_t>(config.attention().kv_heads);
  }
  std::vector<std::int32_t> list;
  for (const model::LayerConfig& layer : config.layers) {
    const bool attention = layer.mixer == model::MixerKind::kAttention;
    const std::int64_t heads = config.attention_of(layer).kv_heads;
    list.push_back(attention ? static_cast<std::int32_t>(heads) : 0);
  }
  return list;
}

void add_attention(const ModelConfig& config, KeyList& keys) {
  const model::AttentionConfig& a = config.attention();
  keys.count("attention.head_count", a.heads);
  keys.put("attention.head_count_kv", heads_of_keys(config));
  keys.count("attention.key_length", a.head_dim);
  keys.count("attention.value_length", a.v_head_dim);
  keys.number("attention.layer_norm_rms_epsilon", config.norm_eps);
  if (known_family(config).architecture == kNemotronArchitecture) {
    // Of a head that predicts further tokens; asked for also where none is.
    keys.number("attention.layer_norm_epsilon", config.norm_eps);
  }
  if (!is_mla(config)) return;
  keys.count("attention.kv_lora_rank", a.kv_lora_rank);
  keys.count("attention.q_lora_rank", a.q_lora_rank);
}

// What architectures after DeepSeek's design say of their router.
void add_router(const model::RouterConfig& router, KeyList& keys) {
  keys.number("expert_weights_scale", router.scale);
  keys.put("expert_weights_norm", router.renormalize);
  constexpr std::int64_t kSoftmax = 1, kSigmoid = 2;
  keys.count(
      "expert_gating_func",
      router.score == model::RouterScore::kSigmoid ? kSigmoid : kSoftmax);
  if (router.groups == 1) return;
  keys.count("expert_group_count", router.groups);
  keys.count("expert_group_used_count", router.topk_groups);
}

// Where MLPs are layers of their own, a list of their widths tells which.
GgufValue feed_forward_widths(
    const ModelConfig& config, const MlpWidths& widths) {
  if (known_family(config).architecture != kNemotronArchitecture) {
    return static_cast<std::uint32_t>(
        widths.dense > 0 ? widths.dense : widths.expert);
  }
  std::vector<std::int32_t> list;
  for (const model::LayerConfig& layer : config.layers) {
    list.push_back(layer.sparse ? static_cast<std::int32_t>(widths.expert) : 0);
  }
  return list;
}

void add_experts(
    const ModelConfig& config, const GgufFamily& family, KeyList& keys) {
  const std::string_view name = family.architecture;
  const MlpWidths widths = widest(config);
  const std::int64_t first = first_sparse(config);
  const model::LayerConfig& sparse = config.layers[first];
  const bool own_width = name != "llama" && name != "olmoe";
  keys.put("feed_forward_length", feed_forward_widths(config, widths));
  keys.count("expert_count", sparse.num_experts());
  keys.count("expert_used_count", sparse.top_k);
  if (own_width) keys.count("expert_feed_forward_length", widths.expert);
  const bool told =
      name == kErnie || is_granite(name) || name == kNemotronArchitecture;
  const bool gated_shared =
      config.shared_expert == model::SharedExpert::kSigmoidGated;
  if (gated_shared || (told && widths.shared > 0)) {
    keys.count("expert_shared_feed_forward_length", widths.shared);
  }
  if (family.has_dense) keys.count("leading_dense_block_count", first);
  if (name == kErnie) keys.count("interleave_moe_layer_step", 1);
  if (family.counts_shared) {
    keys.count("expert_shared_count", widths.shared / widths.expert);
  }
  if (name == kNemotronArchitecture) keys.count("expert_shared_count", 1);
  if (family.counts_shared || config.router.correction_bias) {
    add_router(config.router, keys);
  }
}

}  // namespace

const GgufFamily& gguf_family(
    const ModelConfig& config, const GgufTolerance& tolerance) {
  const GgufFamily& family = known_family(config);
  check_attention(config, family, tolerance);
  check_layers(config, family);
  check_router(config, family);
  if (!has_layer_kinds(family.architecture) ||
      family.architecture == kMellumArchitecture) {
    check_rope(config, family.architecture, tolerance);
  }
  check_layer_kinds(config, family.architecture);
  check_mixers(config, family.architecture);
  if (config.mamba.least_step > 0.0 && !tolerance.nearest) {
    refuse_inexact(fmt::format(
        "'time_step_min' is {}, below which llama.cpp lets steps of Mamba-2 "
        "fall",
        config.mamba.least_step));
  }
  return family;
}

GgufKeys gguf_shape_keys(
    const ModelConfig& config,
    const std::string& model_name,
    std::uint32_t file_type) {
  const GgufFamily& family = known_family(config);
  const std::string name(family.architecture);
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
  if (family.alternates) {
    keys.count("attention.sliding_window", config.layers[0].sliding_window);
  }
  add_rope(config, keys);
  add_experts(config, family, keys);
  add_layer_kinds(config, name, keys);
  add_mixers(config, name, keys);
  return keys.take();
}

}  // namespace fettle::exporter
