// SPDX-License-Identifier: Apache-2.0
#include "model/family/config_common.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <cmath>
#include <utility>

#include "model/family/config_rope.h"
#include "model/family/end_tokens.h"
#include "model/family/stored_source.h"

namespace fettle::model {
namespace {

constexpr std::int64_t kMaxLayers = 1'024;
constexpr std::int64_t kMaxExperts = 4'096;

struct Option {
  std::string_view key;
  Json harmless;  // the only value with which the forward pass stays the same
};

// Options of other families and of later training methods. A key that is in no
// list is one that transformers does not read either for these families.
void refuse_foreign_options(
    const JsonObject& json, const std::vector<std::string_view>& own) {
  const std::array<Option, 16> options = {{
      {"compression_config", nullptr},
      {"mlp_bias", false},
      {"is_encoder_decoder", false},
      {"add_cross_attention", false},
      {"attn_logit_softcapping", nullptr},
      {"final_logit_softcapping", nullptr},
      {"query_pre_attn_scalar", nullptr},
      {"embedding_multiplier", 1.0},
      {"residual_multiplier", 1.0},
      {"attention_multiplier", nullptr},
      {"logits_scaling", 1.0},
      {"logit_scale", 1.0},
      {"no_rope_layers", nullptr},
      {"attention_chunk_size", nullptr},
      {"index_topk", nullptr},
      {"per_layer_config", nullptr},
  }};
  (void)parse_stored_source(json);
  for (const auto& [key, harmless] : options) {
    if (std::ranges::find(own, key) == own.end()) {
      require_value(json, key, harmless);
    }
  }
}

// `hidden_act`, by the names that transformers has for what Fettle computes.
Activation parse_activation(const JsonObject& json) {
  Activation activation = Activation::kSilu;
  for (const std::string_view key : {"hidden_act", "hidden_activation"}) {
    if (!json.has(key) || is_text(json.at(key), "swish")) continue;
    if (is_text(json.at(key), "gelu_pytorch_tanh")) {
      activation = Activation::kGeluTanh;
    } else {
      require_value(json, key, "silu");
    }
  }
  return activation;
}

void parse_heads(
    const JsonObject& json,
    const CommonDefaults& defaults,
    ModelConfig& config) {
  AttentionConfig& attention = config.attention();
  attention.heads =
      read_integer(json, {{"num_attention_heads"}, defaults.heads});
  attention.kv_heads =
      read_optional_integer(json, {{"num_key_value_heads"}, defaults.kv_heads})
          .value_or(attention.heads);
  if (attention.heads % attention.kv_heads != 0) {
    json.refuse(
        "num_key_value_heads",
        fmt::format(
            "is {}, which does not divide 'num_attention_heads', {}",
            attention.kv_heads,
            attention.heads));
  }
}

void parse_head_dim(
    const JsonObject& json,
    std::optional<std::int64_t> fallback,
    ModelConfig& config) {
  AttentionConfig& attention = config.attention();
  const auto given = read_optional_integer(json, {{"head_dim"}, fallback});
  if (!given && config.hidden_size % attention.heads != 0) {
    json.refuse(
        "num_attention_heads",
        fmt::format(
            "is {}, which does not divide 'hidden_size', {}",
            attention.heads,
            config.hidden_size));
  }
  attention.head_dim = given.value_or(config.hidden_size / attention.heads);
  if (attention.head_dim % 2 != 0) {
    json.refuse(
        given ? "head_dim" : "num_attention_heads",
        fmt::format(
            "makes heads {} wide; rotary embeddings need an even width",
            attention.head_dim));
  }
  attention.v_head_dim = attention.head_dim;
  attention.softmax_scale =
      1.0 / std::sqrt(static_cast<double>(attention.head_dim));
}

}  // namespace

ModelConfig parse_common(
    const JsonObject& json, const CommonDefaults& defaults) {
  refuse_foreign_options(json, defaults.own_options);
  ModelConfig config;
  config.vocab_size = read_integer(json, {{"vocab_size"}, defaults.vocab_size});
  config.hidden_size =
      read_integer(json, {{"hidden_size"}, defaults.hidden_size});
  config.max_position =
      read_integer(json, {{"max_position_embeddings"}, defaults.max_position});
  config.norm_eps = read_number(json, {"rms_norm_eps", defaults.norm_eps});
  config.activation = parse_activation(json);
  config.tie_word_embeddings =
      json.boolean_or("tie_word_embeddings", defaults.tie_word_embeddings);
  config.eos_token_ids = parse_end_tokens(json, defaults.eos_token_ids);
  config.layers.resize(static_cast<std::size_t>(read_integer(
      json, {{"num_hidden_layers"}, defaults.layers, 1, kMaxLayers})));
  parse_heads(json, defaults, config);
  return config;
}

void parse_gqa(
    const JsonObject& json, const GqaDefaults& defaults, ModelConfig& config) {
  parse_head_dim(json, defaults.head_dim, config);
  config.attention().rope = parse_rope(
      json,
      {defaults.theta,
       config.attention().head_dim,
       config.max_position,
       defaults.partial_rotary});
}

LayerConfig parse_experts(const JsonObject& json, const ExpertKeys& keys) {
  LayerConfig layer;
  const std::int64_t experts =
      read_integer(json, {keys.count, keys.default_count, 0, kMaxExperts});
  if (experts == 0) return layer;
  layer.sparse = true;
  layer.expert_widths.assign(
      static_cast<std::size_t>(experts),
      read_integer(json, {{keys.width}, keys.default_width}));
  layer.top_k =
      read_integer(json, {keys.top_k, keys.default_top_k, 1, experts});
  return layer;
}

void place_experts_by_step(
    const JsonObject& json,
    const LayerConfig& sparse,
    std::int64_t default_dense_width,
    ModelConfig& config) {
  const std::int64_t step = read_integer(json, {{"decoder_sparse_step"}, 1});
  const auto dense_layers = read_integers(json, "mlp_only_layers");
  const std::int64_t dense_width =
      read_integer(json, {{"intermediate_size"}, default_dense_width});
  for (std::int64_t l = 0; l < config.num_layers(); ++l) {
    const bool listed =
        std::find(dense_layers.begin(), dense_layers.end(), l) !=
        dense_layers.end();
    LayerConfig& layer = config.layers[l];
    if (sparse.sparse && !listed && (l + 1) % step == 0) {
      layer = sparse;
    } else {
      layer.dense_width = dense_width;
    }
  }
}

std::int64_t parse_window(const JsonObject& json, std::int64_t fallback) {
  return read_optional_integer(json, {{"sliding_window"}, fallback, 1})
      .value_or(0);
}

void parse_windows(
    const JsonObject& json,
    std::int64_t window,
    const std::function<bool(std::int64_t)>& is_windowed,
    ModelConfig& config) {
  const bool listed = json.has("layer_types");
  const Json types = listed ? json.at("layer_types") : Json::array();
  for (std::size_t l = 0; l < config.layers.size(); ++l) {
    const bool windowed =
        listed ? l < types.size() && is_text(types[l], "sliding_attention")
               : is_windowed(static_cast<std::int64_t>(l));
    if (windowed) config.layers[l].sliding_window = window;
  }
  check_layer_types(json, config);
}

void check_layer_types(const JsonObject& json, const ModelConfig& config) {
  if (!json.has("layer_types")) return;
  const Json& types = json.at("layer_types");
  if (!types.is_array() || types.size() != config.layers.size()) {
    json.refuse("layer_types", "must be a list with one item a layer");
  }
  for (std::size_t l = 0; l < types.size(); ++l) {
    const std::string_view expected = config.layers[l].sliding_window > 0
                                          ? "sliding_attention"
                                          : "full_attention";
    if (!is_text(types[l], expected)) {
      json.refuse(
          "layer_types",
          fmt::format(
              "says {} of layer {}, where the other options make it {}",
              types[l].dump(),
              l,
              expected));
    }
  }
}

void write_experts(
    Json& json,
    const ExpertKeys& keys,
    const std::vector<std::int64_t>& count_width_top_k) {
  write_spellings(json, keys.count, count_width_top_k.at(0));
  write_spellings(json, {keys.width}, count_width_top_k.at(1));
  write_spellings(json, keys.top_k, count_width_top_k.at(2));
}

}  // namespace fettle::model
