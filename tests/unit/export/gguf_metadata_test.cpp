// SPDX-License-Identifier: Apache-2.0
#include "export/gguf/gguf_metadata.h"

#include <catch2/catch.hpp>
#include <cmath>
#include <map>

#include "core/error.h"
#include "packed_tiny_model.h"

namespace fettle::exporter {
namespace {

using Catch::Matchers::Contains;

model::ModelConfig config_of(const std::string& family, const Json& changes) {
  return testing::tiny_config(testing::wide(family, changes));
}

std::map<std::string, GgufValue> keys_of(
    const std::string& family, const Json& changes = Json::object()) {
  const GgufKeys keys = gguf_shape_keys(config_of(family, changes), "tiny", 0);
  return {keys.begin(), keys.end()};
}

TEST_CASE("Families have llama.cpp's names") {
  REQUIRE(gguf_family(config_of("qwen3_moe", {})).architecture == "qwen3moe");
  REQUIRE(gguf_family(config_of("qwen2_moe", {})).architecture == "qwen2moe");
  REQUIRE(gguf_family(config_of("mixtral", {})).architecture == "llama");
  REQUIRE(gguf_family(config_of("olmoe", {})).architecture == "olmoe");
  REQUIRE(
      gguf_family(config_of("deepseek_v2", {})).architecture == "deepseek2");
  REQUIRE(
      gguf_family(config_of("glm4_moe_lite", {})).architecture == "deepseek2");
  REQUIRE(gguf_family(config_of("glm4_moe", {})).architecture == "glm4moe");
  REQUIRE(
      gguf_family(config_of("ernie4_5_moe", {})).architecture ==
      "ernie4_5-moe");
  const auto lite = config_of("glm4_moe_lite", {{"rms_norm_eps", 1e-5}});
  REQUIRE_THROWS_WITH(
      gguf_family(lite), Contains("export with --nearest to have it so"));
  REQUIRE_NOTHROW(gguf_family(lite, {.nearest = true}));
}

struct Refused {
  std::string family;
  Json changes;
  std::string message;
};

void check(const std::vector<Refused>& all) {
  for (const Refused& refused : all) {
    INFO(refused.message);
    const model::ModelConfig config =
        config_of(refused.family, refused.changes);
    REQUIRE_THROWS_AS(gguf_family(config), UserError);
    REQUIRE_THROWS_WITH(gguf_family(config), Contains(refused.message));
  }
}

TEST_CASE("What llama.cpp computes otherwise is refused by name") {
  const Json rope = {{"rope_type", "dynamic"}, {"factor", 2.0}};
  const Json line = {{"rope_type", "linear"}, {"factor", 2.0}};
  const Json yarn = {
      {"rope_type", "yarn"},
      {"factor", 4.0},
      {"original_max_position_embeddings", 16}};
  Json yarn_whole = yarn;
  yarn_whole["truncate"] = false;
  Json yarn_scales = yarn;
  yarn_scales["mscale"] = 1.3;
  yarn_scales["mscale_all_dim"] = 0.7;
  const std::vector<Refused> all{
      {"qwen3_moe", {{"norm_topk_prob", false}}, "'norm_topk_prob' is false"},
      {"qwen2_moe", {{"norm_topk_prob", true}}, "'norm_topk_prob' is true"},
      {"olmoe", {{"norm_topk_prob", true}}, "'norm_topk_prob' is true"},
      {"olmoe", {{"clip_qkv", 1.0}}, "'clip_qkv' is set"},
      {"olmoe", {{"num_key_value_heads", 1}}, "'num_key_value_heads'"},
      {"olmoe", {{"attention_bias", true}}, "'attention_bias' is true"},
      {"qwen3_moe", {{"attention_bias", true}}, "'attention_bias' is true"},
      {"deepseek_v2", {{"attention_bias", true}}, "'attention_bias' is true"},
      {"qwen2_moe", {{"head_dim", 16}}, "not 'hidden_size' wide"},
      {"mixtral", {{"sliding_window", 8}}, "'sliding_window' is set"},
      {"qwen3_moe", {{"mlp_only_layers", {1}}}, "a layer is dense"},
      {"deepseek_v2", {{"first_k_dense_replace", 2}}, "all layers are dense"},
      {"deepseek_v2", {{"n_shared_experts", 0}}, "there is no shared expert"},
      {"deepseek_v2", {{"rms_norm_eps", 1e-5}}, "'rms_norm_eps' is not 1e-6"},
      {"deepseek_v2",
       {{"num_hidden_layers", 27}, {"q_lora_rank", 32}},
       "'q_lora_rank' is set in 27 layers"},
      {"deepseek_v2",
       {{"topk_method", "group_limited_greedy"},
        {"n_group", 2},
        {"topk_group", 1}},
       "experts are chosen in groups"},
      {"qwen3_moe", {{"rope_scaling", rope}}, "rope scaling is 'dynamic'"},
      {"deepseek_v2", {{"rope_scaling", line}}, "rope scaling is 'linear'"},
      {"qwen3_moe", {{"rope_scaling", yarn_whole}}, "'truncate'"},
      {"deepseek_v2", {{"rope_scaling", yarn}}, "'mscale' of rope scaling"},
      {"deepseek_v2", {{"rope_scaling", yarn_scales}}, "'mscale' of rope"},
  };
  check(all);
}

TEST_CASE("What it computes otherwise of corrected routers' families") {
  check(
      {{"deepseek_v3", {{"rope_interleave", false}}, "'rope_interleave'"},
       {"glm4_moe", {{"attention_bias", false}}, "'attention_bias' is false"},
       {"dots1", {{"n_shared_experts", 0}}, "there is no shared expert"},
       {"dots1", {{"num_key_value_heads", 1}}, "'num_key_value_heads'"},
       {"gpt_oss", Json::object(), "'truncate' of rope scaling is false"},
       {"gpt_oss", {{"attention_bias", false}}, "'attention_bias' is false"},
       {"gpt_oss",
        {{"layer_types", {"full_attention", "full_attention"}}},
        "layer 0 has no window"},
       {"gpt_oss",
        {{"layer_types", {"sliding_attention", "sliding_attention"}}},
        "layer 1 has a window"},
       {"glm4_moe_lite",
        {{"first_k_dense_replace", nullptr},
         {"mlp_layer_types", {"sparse", "dense"}}},
        "a layer is dense"},
       {"ernie4_5_moe", {{"moe_norm_min", 0.1}}, "'moe_norm_min' is 0.1"},
       {"ernie4_5_moe",
        {{"moe_layer_start_index", 0}, {"moe_layer_end_index", 0}},
        "a layer is dense"},
       {"ernie4_5_moe",
        {{"num_hidden_layers", 4}, {"moe_layer_interval", 2}},
        "a layer is dense"}});
}

TEST_CASE("What it computes otherwise of other mixers is refused") {
  const Json sections = {{"rope_theta", 1e4}, {"mrope_section", {4, 0, 0}}};
  check(
      {{"lfm2_moe", {{"conv_bias", true}}, "'conv_bias' is true"},
       {"lfm2_moe", {{"use_expert_bias", false}}, "'use_expert_bias'"},
       {"lfm2_moe", {{"routed_scaling_factor", 2.0}}, "is 2"},
       {"lfm2_moe", {{"norm_topk_prob", false}}, "'norm_topk_prob' is false"},
       {"lfm2_moe", {{"head_dim", 16}}, "not 'hidden_size' wide"},
       {"granitemoehybrid", {{"mamba_proj_bias", true}}, "'mamba_proj_bias'"},
       {"granitemoehybrid", {{"mamba_conv_bias", false}}, "'mamba_conv_bias'"},
       {"granitemoehybrid", {{"mamba_n_groups", 2}}, "'mamba_n_groups' is 2"},
       {"granitemoehybrid",
        {{"time_step_limit", {0.1, 2.0}}},
        "'time_step_limit' is set"},
       {"qwen3_next", {{"attention_bias", true}}, "'attention_bias' is true"},
       {"qwen3_next", {{"linear_value_head_dim", 16}}, "'linear_value_head"},
       {"qwen3_next",
        {{"layer_types", {"full_attention", "linear_attention"}}},
        "don't come at an interval"},
       {"qwen3_5_moe_text",
        {{"rope_parameters", sections}},
        "'mrope_section' leaves rotated dimensions without a position"}});
}

TEST_CASE("Layers of a mixer or an MLP are told by lists") {
  const Json exact = {{"time_step_min", 0.0}};
  check(
      {{"nemotron_h", Json::object(), "'time_step_min' is 0.001"},
       {"nemotron_h", {{"use_bias", true}}, "'use_bias' is true"},
       {"nemotron_h", {{"use_conv_bias", false}}, "'use_conv_bias' is false"},
       {"nemotron_h", {{"layers_block_type", {"mlp", "moe"}}}, "is dense"},
       {"nemotron_h",
        {{"layers_block_type", {"mlp", "linear_attention"}}},
        "all layers are dense"}});
  const model::ModelConfig config = config_of("nemotron_h", exact);
  REQUIRE_NOTHROW(gguf_family(config));
  REQUIRE_NOTHROW(gguf_family(config_of("nemotron_h", {}), {.nearest = true}));
  const auto keys = keys_of("nemotron_h", exact);
  const auto number = [&](const std::string& key) {
    return std::get<std::uint32_t>(keys.at("nemotron_h_moe." + key));
  };
  const auto list = [&](const std::string& key) {
    return std::get<std::vector<std::int32_t>>(
        keys.at("nemotron_h_moe." + key));
  };
  REQUIRE(list("feed_forward_length") == std::vector<std::int32_t>{0, 32});
  REQUIRE(list("attention.head_count_kv") == std::vector<std::int32_t>{0, 0});
  REQUIRE(number("expert_feed_forward_length") == 32);
  REQUIRE(number("expert_shared_feed_forward_length") == 64);
  REQUIRE(number("expert_shared_count") == 1);
  REQUIRE(number("expert_gating_func") == 2);
  REQUIRE(number("ssm.group_count") == 2);
  REQUIRE(number("ssm.inner_size") == 128);
}

TEST_CASE("Layers without attention have llama.cpp's keys") {
  const auto next = keys_of("qwen3_next");
  const auto number = [](const auto& keys, const std::string& key) {
    return std::get<std::uint32_t>(keys.at(key));
  };
  REQUIRE(number(next, "qwen3next.ssm.conv_kernel") == 4);
  REQUIRE(number(next, "qwen3next.ssm.state_size") == 32);
  REQUIRE(number(next, "qwen3next.ssm.group_count") == 2);
  REQUIRE(number(next, "qwen3next.ssm.time_step_rank") == 4);
  REQUIRE(number(next, "qwen3next.ssm.inner_size") == 128);
  REQUIRE(number(next, "qwen3next.full_attention_interval") == 2);
  REQUIRE(number(next, "qwen3next.expert_shared_feed_forward_length") == 64);
  REQUIRE_FALSE(next.contains("qwen3next.rope.dimension_sections"));
  using List = std::vector<std::int32_t>;
  REQUIRE(
      std::get<List>(keys_of("qwen3_5_moe_text")
                         .at("qwen35moe.rope.dimension_sections")) ==
      List{11, 11, 10, 0});
  const auto lfm2 = keys_of("lfm2_moe");
  REQUIRE(number(lfm2, "lfm2moe.shortconv.l_cache") == 3);
  REQUIRE(number(lfm2, "lfm2moe.leading_dense_block_count") == 1);
  REQUIRE(number(lfm2, "lfm2moe.expert_gating_func") == 2);
  REQUIRE(
      std::get<List>(lfm2.at("lfm2moe.attention.head_count_kv")) == List{0, 2});
  const auto granite = keys_of("granitemoehybrid");
  REQUIRE(number(granite, "granitehybrid.ssm.inner_size") == 128);
  REQUIRE(number(granite, "granitehybrid.ssm.time_step_rank") == 4);
  REQUIRE(number(granite, "granitehybrid.rope.dimension_count") == 32);
  REQUIRE_FALSE(
      std::get<bool>(granite.at("granitehybrid.rope.scaling.finetuned")));
  REQUIRE(
      std::get<List>(granite.at("granitehybrid.attention.head_count_kv")) ==
      List{0, 2});
}

TEST_CASE("Layers of several kinds of attention are refused") {
  model::ModelConfig config = config_of("qwen3_moe", {});
  config.attentions.push_back(config.attention());
  REQUIRE_THROWS_WITH(
      gguf_family(config), Contains("layers differ in their attention"));
}

TEST_CASE("Expert widths have the family's own keys") {
  const auto qwen = keys_of("qwen2_moe");
  REQUIRE(
      std::get<std::uint32_t>(qwen.at("qwen2moe.expert_feed_forward_length")) ==
      32);
  REQUIRE(
      std::get<std::uint32_t>(
          qwen.at("qwen2moe.expert_shared_feed_forward_length")) == 64);
  const auto mixtral = keys_of("mixtral");
  REQUIRE(
      std::get<std::uint32_t>(mixtral.at("llama.feed_forward_length")) == 32);
  REQUIRE_FALSE(mixtral.contains("llama.expert_feed_forward_length"));
  const auto deepseek = keys_of("deepseek_v2", {{"q_lora_rank", 32}});
  const auto number = [&](const std::string& key) {
    return std::get<std::uint32_t>(deepseek.at("deepseek2." + key));
  };
  REQUIRE(number("attention.q_lora_rank") == 32);
  REQUIRE(number("attention.kv_lora_rank") == 32);
  REQUIRE(number("attention.key_length") == 32);
  REQUIRE(number("attention.value_length") == 32);
  REQUIRE(number("rope.dimension_count") == 16);
  REQUIRE(number("expert_shared_count") == 2);
  REQUIRE(number("leading_dense_block_count") == 1);
}

TEST_CASE("Corrected routers have llama.cpp's keys") {
  const auto v3 = keys_of(
      "deepseek_v3",
      {{"n_routed_experts", 8}, {"n_group", 4}, {"topk_group", 2}});
  const auto number = [](const auto& keys, const std::string& key) {
    return std::get<std::uint32_t>(keys.at(key));
  };
  REQUIRE(number(v3, "deepseek2.expert_gating_func") == 2);
  REQUIRE(number(v3, "deepseek2.expert_group_count") == 4);
  REQUIRE(number(v3, "deepseek2.expert_group_used_count") == 2);
  REQUIRE(std::get<float>(v3.at("deepseek2.expert_weights_scale")) == 2.5f);
  REQUIRE(std::get<bool>(v3.at("deepseek2.expert_weights_norm")));
  const auto glm = keys_of("glm4_moe");
  REQUIRE(number(glm, "glm4moe.rope.dimension_count") == 16);
  REQUIRE(number(glm, "glm4moe.attention.key_length") == 32);
  REQUIRE(number(glm, "glm4moe.expert_shared_count") == 2);
  REQUIRE_FALSE(glm.contains("glm4moe.expert_group_count"));
  const auto ernie = keys_of("ernie4_5_moe", {{"moe_layer_start_index", 1}});
  REQUIRE(number(ernie, "ernie4_5-moe.interleave_moe_layer_step") == 1);
  REQUIRE(number(ernie, "ernie4_5-moe.leading_dense_block_count") == 1);
  REQUIRE(number(ernie, "ernie4_5-moe.expert_gating_func") == 1);
  REQUIRE(
      number(ernie, "ernie4_5-moe.expert_shared_feed_forward_length") == 64);
  // Its full layer knows no positions: two kinds of attention, one number.
  const auto afmoe = keys_of("afmoe", {{"num_hidden_layers", 4}});
  REQUIRE(number(afmoe, "afmoe.attention.head_count_kv") == 2);
  const auto minimax = keys_of("minimax_m2", {{"rotary_dim", 16}});
  REQUIRE(number(minimax, "minimax-m2.expert_gating_func") == 2);
  REQUIRE(number(minimax, "minimax-m2.expert_feed_forward_length") == 32);
  REQUIRE(number(minimax, "minimax-m2.rope.dimension_count") == 16);
}

TEST_CASE("Rotary scaling is told by llama.cpp's keys") {
  const auto plain = keys_of("qwen3_moe");
  REQUIRE_FALSE(plain.contains("qwen3moe.rope.scaling.type"));
  const auto linear = keys_of(
      "qwen3_moe",
      {{"rope_scaling", {{"rope_type", "linear"}, {"factor", 3.0}}}});
  REQUIRE(
      std::get<std::string>(linear.at("qwen3moe.rope.scaling.type")) ==
      "linear");
  REQUIRE(std::get<float>(linear.at("qwen3moe.rope.scaling.factor")) == 3);
  const Json yarn = {
      {"rope_type", "yarn"},
      {"factor", 4.0},
      {"original_max_position_embeddings", 16},
      {"attention_factor", 0.8}};
  const auto keys = keys_of("qwen3_moe", {{"rope_scaling", yarn}});
  REQUIRE(
      std::get<float>(keys.at("qwen3moe.rope.scaling.attn_factor")) ==
      Approx(0.8 / (1 + 0.1 * std::log(4.0))));
  const Json deep = {
      {"rope_type", "yarn"},
      {"factor", 4.0},
      {"original_max_position_embeddings", 16},
      {"mscale", 0.7},
      {"mscale_all_dim", 0.7}};
  const auto latent = keys_of("deepseek_v2", {{"rope_scaling", deep}});
  REQUIRE(
      std::get<float>(latent.at(
          "deepseek2.rope.scaling.yarn_log_multiplier")) == Approx(0.07));
}

}  // namespace
}  // namespace fettle::exporter
