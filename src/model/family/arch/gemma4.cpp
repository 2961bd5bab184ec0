// SPDX-License-Identifier: Apache-2.0
// Gemma 4, its mixtures: a dense MLP beside the experts, norms around all of
// them, a router with a norm and scales of its own, layers with a window and
// full layers whose heads are wider and whose values may be their keys. On disk
// the experts are stacks. Source: transformers 5.17, models/gemma4.
#include <algorithm>
#include <cmath>
#include <string>

#include <fmt/format.h>

#include "model/family/arch/families.h"
#include "model/family/arch/shared_rows.h"
#include "model/family/arch/stacked_rows.h"
#include "model/family/config_common.h"
#include "model/family/config_kinds.h"

namespace fettle::model {
namespace {

constexpr std::string_view kByLayer = "per_layer_config";
constexpr std::string_view kSoftCap = "final_logit_softcapping";

ExpertKeys expert_keys() {
  return {
      {"num_experts"}, {}, "moe_intermediate_size", 0, {}, {"top_k_experts"}};
}

// What the small models have, which are no mixtures.
void refuse_small(const JsonObject& json) {
  const auto refuse_count = [&](std::string_view key, std::int64_t fallback) {
    const std::int64_t count = read_integer(json, {{key}, fallback, 0});
    if (count == 0) return;
    json.refuse(
        key,
        fmt::format(
            "is {}; Fettle runs no such Gemma 4, as E2B and E4B", count));
  };
  refuse_count("hidden_size_per_layer_input", 256);
  refuse_count("num_kv_shared_layers", 0);
  if (!json.boolean_or("enable_moe_block", false)) {
    json.refuse("enable_moe_block", "is false; a sparse layer has experts");
  }
  // Tokens of images alone see one another both ways with "vision".
  if (json.has("use_bidirectional_attention") &&
      !is_text(json.at("use_bidirectional_attention"), "vision")) {
    require_value(json, "use_bidirectional_attention", nullptr);
  }
}

void place_layers(const JsonObject& json, ModelConfig& config) {
  LayerConfig sparse = parse_experts(json, expert_keys());
  if (!sparse.sparse) {
    json.refuse("num_experts", "is 0; a sparse layer has experts");
  }
  sparse.dense_width = read_integer(json, {{"intermediate_size"}, 9216});
  config.layers.assign(config.layers.size(), sparse);
  const std::int64_t last = config.num_layers() - 1;
  parse_windows(
      json,
      read_integer(json, {{"sliding_window"}, 512}),
      [&](std::int64_t l) { return (l + 1) % 6 != 0 && l != last; },
      config);
  if (config.layers.back().sliding_window > 0) {
    json.refuse(
        "layer_types",
        "ends in \"sliding_attention\", but the last layer is always full");
  }
}

// The size of heads and their number in full layers, by `per_layer_config`,
// which transformers writes, or by keys of their own.
struct FullHeads {
  std::int64_t size = 0;
  std::int64_t kv_heads = 0;
};

FullHeads full_heads(
    const JsonObject& json, bool k_as_v, const ModelConfig& config) {
  const std::int64_t sliding_kv = config.attention().kv_heads;
  if (!json.has(kByLayer)) {
    const auto kv_heads = read_optional_integer(
        json, {{"num_global_key_value_heads"}, std::nullopt});
    return {
        read_integer(json, {{"global_head_dim"}, 512}),
        k_as_v ? kv_heads.value_or(sliding_kv) : sliding_kv};
  }
  const JsonObject all = json.object(kByLayer);
  std::optional<Json> first;
  for (std::int64_t l = 0; l < config.num_layers(); ++l) {
    const bool full = config.layers[l].sliding_window == 0;
    const Json one = all.json().value(std::to_string(l), Json::object());
    if (full && !first) first = one;
    if (one == (full ? *first : Json::object())) continue;
    json.refuse(
        kByLayer,
        fmt::format(
            "says {} of layer {}; Fettle knows heads of one size in all full "
            "layers, and none of their own in the others",
            one.dump(),
            l));
  }
  const JsonObject heads(*first, "model", json.subject());
  for (const auto& [key, value] : first->items()) {
    if (key != "head_dim" && key != "num_key_value_heads") {
      heads.refuse(key, "is no option of single layers that Fettle knows");
    }
  }
  return {
      read_integer(
          heads, {{"head_dim"}, read_integer(json, {{"head_dim"}, 256})}),
      read_integer(heads, {{"num_key_value_heads"}, sliding_kv})};
}

// One of the two kinds of attention, out of a configuration that speaks of it.
AttentionConfig parse_kind(
    const JsonObject& json, std::string_view type, ModelConfig& config) {
  Json flat = with_rope_of(json, type);
  const bool full = type == kFullType;
  if (full && !json.has("rope_parameters")) {
    flat["rope_parameters"] = {
        {"rope_type", "proportional"}, {"partial_rotary_factor", 0.25}};
  }
  const std::int64_t kv_heads = config.attention().kv_heads;
  const bool k_as_v = full && json.boolean_or("attention_k_eq_v", false);
  if (full) {
    const FullHeads heads = full_heads(json, k_as_v, config);
    flat["head_dim"] = heads.size;
    config.attention().kv_heads = heads.kv_heads;
    if (config.attention().heads % heads.kv_heads != 0) {
      json.refuse(
          "num_global_key_value_heads",
          fmt::format(
              "is {}, which does not divide 'num_attention_heads', {}",
              heads.kv_heads,
              config.attention().heads));
    }
  }
  parse_gqa(
      JsonObject(flat, "model", json.subject()),
      {.theta = full ? 1e6 : 1e4, .head_dim = 256},
      config);
  AttentionConfig result = config.attention();
  config.attention().kv_heads = kv_heads;
  result.softmax_scale = 1.0;
  result.qk_norm = QkNorm::kHead;
  result.v_norm = true;
  result.k_as_v = k_as_v;
  result.qkv_bias = json.boolean_or("attention_bias", false);
  result.o_bias = result.qkv_bias;
  return result;
}

ModelConfig parse(const JsonObject& json) {
  ModelConfig config = parse_common(
      json,
      {.vocab_size = 262144,
       .hidden_size = 2304,
       .layers = 30,
       .heads = 8,
       .kv_heads = 4,
       .max_position = 131072,
       .eos_token_ids = {1},
       .tie_word_embeddings = true,
       .own_options = {kSoftCap, kByLayer}});
  refuse_small(json);
  if (!json.has("hidden_activation")) {
    config.activation = Activation::kGeluTanh;
  }
  place_layers(json, config);
  const bool slides = std::ranges::any_of(config.layers, [](const auto& layer) {
    return layer.sliding_window > 0;
  });
  AttentionConfig sliding;
  if (slides) sliding = parse_kind(json, kSlidingType, config);
  set_attentions(parse_kind(json, kFullType, config), sliding, config);
  config.router.renormalize = true;
  config.router.own_norm = true;
  config.router.expert_scales = true;
  config.block.out_norms = true;
  config.block.layer_scalar = true;
  config.ends.embedding_multiplier =
      std::sqrt(static_cast<double>(config.hidden_size));
  config.ends.rounds_embedding_multiplier = true;
  if (json.has(kSoftCap))
    config.ends.soft_cap = read_number(json, {kSoftCap, {}});
  return config;
}

constexpr WeightRow kOwnRows[] = {
    {Role::kAttentionOutNorm,
     "model.layers.{l}.post_attention_layernorm.weight"},
    {Role::kPostAttentionNorm,
     "model.layers.{l}.pre_feedforward_layernorm.weight"},
    {Role::kMlpOutNorm, "model.layers.{l}.post_feedforward_layernorm.weight"},
    {Role::kDenseOutNorm,
     "model.layers.{l}.post_feedforward_layernorm_1.weight"},
    {Role::kExpertsNorm, "model.layers.{l}.pre_feedforward_layernorm_2.weight"},
    {Role::kExpertsOutNorm,
     "model.layers.{l}.post_feedforward_layernorm_2.weight"},
    {Role::kLayerScalar, "model.layers.{l}.layer_scalar"},
    {Role::kRouter, "model.layers.{l}.router.proj.weight"},
    {Role::kRouterNorm, "model.layers.{l}.router.scale"},
    {Role::kExpertScale, "model.layers.{l}.router.per_expert_scale"},
    own_row(Role::kRouterBias, "model.layers.{l}.router.logit_bias"),
    stacked_row(
        Role::kExpertGate,
        "model.layers.{l}.experts.{e}.gate_proj.weight",
        "model.layers.{l}.experts.gate_up_proj"),
    stacked_row(
        Role::kExpertUp,
        "model.layers.{l}.experts.{e}.up_proj.weight",
        "model.layers.{l}.experts.gate_up_proj"),
    stacked_row(
        Role::kExpertDown,
        "model.layers.{l}.experts.{e}.down_proj.weight",
        "model.layers.{l}.experts.down_proj"),
    own_row(Role::kExpertConstant, "model.layers.{l}.experts.constant"),
};

constexpr auto kWeights =
    joined(kFirstRows, kGroupedRows, kOwnRows, kDenseRows, kLastRows);

}  // namespace

Family gemma4_family() {
  return {"gemma4_text", parse, write_experts_by<expert_keys>, kWeights};
}

}  // namespace fettle::model
