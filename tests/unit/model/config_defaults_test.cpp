// SPDX-License-Identifier: Apache-2.0
// What the configurations say where config.json is silent, and both spellings.
#include <catch2/catch.hpp>

#include "core/error.h"
#include "model/family/model_config.h"
#include "sample_config.h"

using namespace fettle;
using namespace fettle::model;
using fettle::model::testing::sample;
using fettle::model::testing::sample_json;

namespace {

ModelConfig bare(const std::string& family, Json json = Json::object()) {
  json["model_type"] = family;
  return parse_model_config(json, "config.json");
}

std::vector<std::int64_t> windows(const ModelConfig& config) {
  std::vector<std::int64_t> result;
  for (const LayerConfig& layer : config.layers) {
    result.push_back(layer.sliding_window);
  }
  return result;
}

std::vector<bool> sparse_layers(const ModelConfig& config) {
  std::vector<bool> result;
  for (const LayerConfig& layer : config.layers) result.push_back(layer.sparse);
  return result;
}

}  // namespace

TEST_CASE("an absent key means what the family's own class says") {
  const ModelConfig qwen3 = bare("qwen3_moe");
  CHECK(qwen3.num_layers() == 24);
  CHECK(qwen3.attention().kv_heads == 4);
  CHECK(qwen3.attention().head_dim == 64);
  CHECK(qwen3.attention().qk_norm == QkNorm::kHead);
  CHECK(qwen3.attention().rope.theta == 10000.0);
  CHECK(qwen3.layers[0].num_experts() == 128);
  CHECK(qwen3.layers[0].expert_widths[0] == 768);
  CHECK(qwen3.layers[0].top_k == 8);
  CHECK_FALSE(qwen3.router.renormalize);
  CHECK(qwen3.eos_token_ids.empty());

  const ModelConfig qwen2 = bare("qwen2_moe");
  CHECK(qwen2.attention().qkv_bias);
  CHECK_FALSE(qwen2.attention().o_bias);
  CHECK(qwen2.shared_expert == SharedExpert::kSigmoidGated);
  CHECK(qwen2.layers[3].shared_width == 5632);

  const ModelConfig mixtral = bare("mixtral");
  CHECK(mixtral.attention().rope.theta == 1e6);
  CHECK(mixtral.norm_eps == 1e-5);
  CHECK(mixtral.router.renormalize);
  CHECK(mixtral.layers[0].expert_widths[7] == 14336);
  CHECK(mixtral.eos_token_ids == std::vector<std::int64_t>{2});

  const ModelConfig olmoe = bare("olmoe");
  CHECK(olmoe.attention().kv_heads == 16);
  CHECK(olmoe.attention().qk_norm == QkNorm::kFull);
  CHECK(olmoe.norm_eps == 1e-5);
  CHECK_FALSE(olmoe.attention().clip_qkv);

  const ModelConfig deepseek =
      bare("deepseek_v2", {{"num_experts_per_tok", 6}});
  CHECK(deepseek.attention().kind == AttentionKind::kMla);
  CHECK(deepseek.attention().q_lora_rank == 1536);
  CHECK(deepseek.attention().head_dim == 192);
  CHECK(deepseek.attention().v_head_dim == 128);
  CHECK(deepseek.latent_norm_eps == 1e-6);
  CHECK(deepseek.attention().rope.dim == 64);
  CHECK(deepseek.attention().rope.pairing == RopePairing::kInterleaved);
  CHECK(deepseek.shared_expert == SharedExpert::kPlain);
  CHECK(deepseek.layers[0].sparse);
  CHECK(deepseek.layers[0].shared_width == 2 * 1407);
}

TEST_CASE("what DeepSeek-V3 and its like say where they are silent") {
  const ModelConfig v3 = bare("deepseek_v3");
  CHECK(v3.attention().kind == AttentionKind::kMla);
  CHECK(v3.attention().q_lora_rank == 1536);
  CHECK(v3.layers[2].dense_width == 18432);
  CHECK(v3.layers[3].shared_width == 2048);
  CHECK(v3.layers[3].num_experts() == 256);
  CHECK(v3.router.score == RouterScore::kSigmoid);
  CHECK(v3.router.correction_bias);
  CHECK(v3.router.groups == 8);
  CHECK(v3.router.topk_groups == 4);
  CHECK(v3.router.group_score == GroupScore::kTopTwoSum);
  CHECK(v3.router.outside_groups == OutsideGroups::kMinusInfinity);
  CHECK(v3.router.renormalize);
  CHECK(v3.router.added_sum == 1e-20);
  CHECK(v3.router.scale == 2.5);
  CHECK(v3.attention().rope.pairing == RopePairing::kInterleaved);
  CHECK_THROWS_WITH(
      bare("deepseek_v3", {{"n_group", 2}}),
      Catch::Contains("'topk_group' is missing"));

  const ModelConfig lite = bare("glm4_moe_lite");
  CHECK(lite.attention().head_dim == 256);
  CHECK(lite.attention().v_head_dim == 256);
  CHECK(lite.norm_eps == 1e-5);
  CHECK(lite.latent_norm_eps == 1e-6);
  CHECK(lite.router.scale == 1.8);
  CHECK_FALSE(lite.layers[0].sparse);
  CHECK(lite.layers[1].top_k == 4);

  const ModelConfig dots =
      bare("dots1", {{"n_routed_experts", 16}, {"num_experts_per_tok", 6}});
  CHECK(dots.attention().qk_norm == QkNorm::kHead);
  CHECK(dots.attention().head_dim == 144);
  CHECK_FALSE(dots.router.renormalize);
  CHECK(dots.layers[0].sparse);
  CHECK(dots.layers[0].shared_width == 0);
  CHECK(windows(dots) == std::vector<std::int64_t>(62, 0));
}

TEST_CASE("what GLM, ERNIE and MiniMax say where they are silent") {
  const ModelConfig glm = bare("glm4_moe", {{"head_dim", 128}});
  CHECK(glm.attention().kv_heads == 8);
  CHECK(glm.attention().qk_norm == QkNorm::kNone);
  CHECK(glm.attention().rope.dim == 64);
  CHECK(glm.router.groups == 1);
  CHECK(glm.router.renormalize);
  CHECK(glm.layers[0].dense_width == 10944);
  CHECK(glm.layers[1].shared_width == 1408);
  CHECK(glm.norm_eps == 1e-5);

  const ModelConfig ernie = bare("ernie4_5_moe");
  CHECK(ernie.tie_word_embeddings);
  CHECK(ernie.attention().rope.pairing == RopePairing::kInterleaved);
  CHECK(ernie.attention().rope.theta == 500000.0);
  CHECK(ernie.router.score == RouterScore::kSoftmaxThenTopk);
  CHECK(ernie.router.correction_bias);
  CHECK(ernie.router.least_sum == 1e-12);
  CHECK(ernie.router.added_sum == 0.0);
  CHECK_FALSE(ernie.layers[0].sparse);
  CHECK(ernie.layers[27].top_k == 6);
  CHECK(ernie.layers[27].shared_width == 2 * 1536);

  const ModelConfig minimax = bare("minimax_m2", {{"rotary_dim", 64}});
  CHECK(minimax.attention().head_dim == 128);
  CHECK(minimax.attention().qk_norm == QkNorm::kFull);
  CHECK(minimax.attention().rope.dim == 64);
  CHECK(minimax.attention().rope.theta == 5e6);
  CHECK(minimax.router.score == RouterScore::kSigmoid);
  CHECK(minimax.router.correction_bias);
  CHECK(minimax.router.renormalize);
  CHECK(minimax.router.added_sum == 0.0);
  CHECK(minimax.layers[0].expert_widths[255] == 1536);
  CHECK(bare("minimax_m2").attention().rope.dim == 128);
}

TEST_CASE("what gpt-oss says where it is silent") {
  const ModelConfig config = bare("gpt_oss");
  const AttentionConfig& attention = config.attention();
  CHECK(attention.heads == 64);
  CHECK(attention.kv_heads == 8);
  CHECK(attention.head_dim == 64);
  CHECK(attention.qkv_bias);
  CHECK(attention.o_bias);
  CHECK(attention.sinks);
  CHECK(attention.rope.type == "yarn");
  CHECK(attention.rope.theta == 150000.0);
  CHECK(attention.rope.factor == 32.0);
  CHECK(attention.rope.original_max_position == 4096);
  CHECK_FALSE(attention.rope.truncate);
  CHECK(config.router.score == RouterScore::kTopkThenSoftmax);
  CHECK(config.activation == Activation::kClampedSwiglu);
  CHECK(config.expert_bias);
  CHECK(config.norm_eps == 1e-5);
  CHECK(config.num_layers() == 36);
  CHECK(config.layers[0].expert_widths == std::vector<std::int64_t>(128, 2880));
  CHECK(config.layers[0].top_k == 4);
  CHECK(config.layers[0].has_constants);
  CHECK(config.layers[0].router_bias);
  CHECK(config.layers[0].sliding_window == 128);
  CHECK(config.layers[1].sliding_window == 0);
}

TEST_CASE("Mellum's layers have the rotary embedding of their type") {
  const ModelConfig plain = bare("mellum");
  CHECK(plain.attentions.size() == 1);
  CHECK(plain.attention().head_dim == 128);
  CHECK(plain.attention().rope.theta == 500000.0);
  CHECK(plain.attention().qk_norm == QkNorm::kHead);
  CHECK(plain.router.renormalize);
  CHECK(plain.layers[0].num_experts() == 64);
  const Json types = {
      {"layer_types", {"sliding_attention", "full_attention"}},
      {"sliding_window", 5},
      {"mlp_layer_types", {"dense", "sparse"}}};
  const ModelConfig silent = sample("mellum", types);
  CHECK(windows(silent) == std::vector<std::int64_t>{5, 0});
  CHECK(sparse_layers(silent) == std::vector<bool>{false, true});
  CHECK(silent.attention_of(silent.layers[0]).rope.theta == 10000.0);
  CHECK(silent.attention_of(silent.layers[1]).rope.theta == 500000.0);
  Json said = types;
  said["rope_parameters"] = {
      {"full_attention",
       {{"rope_type", "linear"}, {"rope_theta", 3.0}, {"factor", 2.0}}},
      {"sliding_attention", {{"rope_type", "default"}, {"rope_theta", 7.0}}}};
  const ModelConfig config = sample("mellum", said);
  CHECK(config.attention_of(config.layers[0]).rope.type == "default");
  CHECK(config.attention_of(config.layers[0]).rope.theta == 7.0);
  CHECK(config.attention_of(config.layers[1]).rope.factor == 2.0);
  said["layer_types"] = {"sliding_attention", "sliding_attention"};
  said["rope_parameters"].erase("full_attention");
  const ModelConfig alike = sample("mellum", said);
  CHECK(alike.attentions.size() == 1);
  CHECK(alike.attention().rope.theta == 7.0);
}

TEST_CASE("options of GLM and ERNIE") {
  const ModelConfig glm = sample(
      "glm4_moe",
      {{"head_dim", 8},
       {"use_qk_norm", true},
       {"attention_bias", true},
       {"rope_parameters", {{"partial_rotary_factor", 0.25}}}});
  CHECK(glm.attention().qk_norm == QkNorm::kHead);
  CHECK(glm.attention().qkv_bias);
  CHECK_FALSE(glm.attention().o_bias);
  CHECK(glm.attention().rope.dim == 2);
  const Json six = {
      {"num_hidden_layers", 6},
      {"moe_layer_interval", 2},
      {"moe_layer_start_index", 2},
      {"moe_layer_end_index", 4},
      {"moe_num_shared_experts", 0}};
  const ModelConfig ernie = sample("ernie4_5_moe", six);
  CHECK(
      sparse_layers(ernie) ==
      std::vector<bool>{false, false, false, true, false, false});
  CHECK(ernie.shared_expert == SharedExpert::kNone);
}

TEST_CASE("options of DeepSeek-V3 and its like") {
  const ModelConfig v3 = sample(
      "deepseek_v3",
      {{"rope_interleave", nullptr},
       {"norm_topk_prob", false},
       {"scoring_func", "noaux_tc"},
       {"topk_method", "noaux_tc"}});
  CHECK(v3.attention().rope.pairing == RopePairing::kHalf);
  CHECK_FALSE(v3.router.renormalize);
  Json json = sample_json("glm4_moe_lite");
  json.erase("first_k_dense_replace");
  json["mlp_layer_types"] = {"sparse", "dense"};
  CHECK(
      sparse_layers(parse_model_config(json, "config.json")) ==
      std::vector<bool>{true, false});
  const Json window = {{"sliding_window", 5}, {"max_window_layers", 1}};
  CHECK(windows(sample("dots1", window)) == std::vector<std::int64_t>{0, 5});
}

TEST_CASE("transformers 4 and 5 spellings give one configuration") {
  const Json old_keys = {
      {"num_experts", 4},
      {"rope_theta", 5000.0},
      {"rope_scaling", {{"type", "linear"}, {"factor", 2.0}}},
      {"torch_dtype", "bfloat16"}};
  Json json = sample_json("qwen3_moe");
  json.erase("num_experts");
  json.update(
      {{"num_local_experts", 4},
       {"rope_parameters",
        {{"rope_type", "linear"}, {"factor", 2.0}, {"rope_theta", 5000.0}}},
       {"dtype", "bfloat16"}});
  const ModelConfig a = sample("qwen3_moe", old_keys);
  const ModelConfig b = parse_model_config(json, "config.json");
  CHECK((a.layers == b.layers));
  CHECK(a.attention().rope.theta == 5000.0);
  CHECK(b.attention().rope.theta == 5000.0);
  CHECK(a.attention().rope.type == "linear");
  CHECK(b.attention().rope.type == "linear");
  CHECK(a.attention().rope.factor == b.attention().rope.factor);
  json["num_experts"] = 5;
  CHECK_THROWS_WITH(
      parse_model_config(json, "config.json"),
      Catch::Contains("'num_local_experts' is 4") &&
          Catch::Contains("'num_experts'") && Catch::Contains("is 5"));
}

TEST_CASE("dense and sparse layers follow the step and the list") {
  const Json four = {{"num_hidden_layers", 4}};
  Json json = four;
  json["decoder_sparse_step"] = 2;
  CHECK(
      sparse_layers(sample("qwen3_moe", json)) ==
      std::vector<bool>{false, true, false, true});
  json["mlp_only_layers"] = {3, 9};
  const ModelConfig config = sample("qwen2_moe", json);
  CHECK(sparse_layers(config) == std::vector<bool>{false, true, false, false});
  CHECK(config.layers[0].dense_width == 10);
  CHECK(config.layers[0].shared_width == 0);
  CHECK(config.layers[1].dense_width == 0);
  CHECK(config.layers[1].shared_width == 5);
  CHECK(sparse_layers(sample("deepseek_v2")) == std::vector<bool>{false, true});
  const ModelConfig none = sample("qwen3_moe", {{"num_experts", 0}});
  CHECK(sparse_layers(none) == std::vector<bool>{false, false});
}

TEST_CASE("windows go to the layers that each family gives them") {
  const Json window = {
      {"num_hidden_layers", 4},
      {"use_sliding_window", true},
      {"sliding_window", 7},
      {"max_window_layers", 3}};
  using Windows = std::vector<std::int64_t>;
  CHECK(windows(sample("qwen3_moe", window)) == Windows{7, 7, 7, 7});
  CHECK(windows(sample("qwen2_moe", window)) == Windows{7, 0, 7, 0});
  CHECK(windows(sample("mixtral", {{"sliding_window", 9}})) == Windows{9, 9});
  CHECK(
      windows(sample("mixtral", {{"sliding_window", nullptr}})) ==
      Windows{0, 0});
  // Without use_sliding_window the size means nothing.
  CHECK(windows(sample("qwen3_moe", {{"sliding_window", 7}})) == Windows{0, 0});
  Json typed = window;
  typed["layer_types"] = {
      "full_attention",
      "sliding_attention",
      "sliding_attention",
      "full_attention"};
  CHECK(windows(sample("qwen2_moe", typed)) == Windows{0, 7, 7, 0});
  CHECK_THROWS_WITH(
      sample("qwen3_moe", typed), Catch::Contains("'layer_types' says"));
  typed["use_sliding_window"] = false;
  CHECK_THROWS_WITH(
      sample("qwen2_moe", typed), Catch::Contains("'layer_types' says"));
  typed["layer_types"] = {"full_attention"};
  CHECK_THROWS_WITH(
      sample("qwen2_moe", typed), Catch::Contains("one item a layer"));
}

TEST_CASE("heads may be wider than the hidden size shares out") {
  const ModelConfig wide = sample("mixtral", {{"head_dim", 6}});
  CHECK(wide.attention().head_dim == 6);
  CHECK(wide.attention().rope.dim == 6);
  CHECK(wide.attention().softmax_scale == Approx(1 / std::sqrt(6.0)));
  CHECK(sample("mixtral", {{"head_dim", nullptr}}).attention().head_dim == 4);
  const Json all = {{"num_key_value_heads", nullptr}};
  CHECK(sample("olmoe", all).attention().kv_heads == 2);
}

TEST_CASE("end tokens come as one, several or none") {
  using Ids = std::vector<std::int64_t>;
  CHECK(sample("olmoe", {{"eos_token_id", 5}}).eos_token_ids == Ids{5});
  CHECK(sample("olmoe", {{"eos_token_id", {5, 6}}}).eos_token_ids == Ids{5, 6});
  CHECK(sample("olmoe", {{"eos_token_id", nullptr}}).eos_token_ids.empty());
  CHECK(sample("olmoe", {{"eos_token_id", -1}}).eos_token_ids.empty());
  CHECK(sample("olmoe").eos_token_ids == Ids{50279});
}

TEST_CASE("DeepSeek's routing options") {
  const ModelConfig grouped = sample(
      "deepseek_v2",
      {{"topk_method", "group_limited_greedy"},
       {"n_group", 2},
       {"topk_group", 1},
       {"routed_scaling_factor", 16.0}});
  CHECK(grouped.router.groups == 2);
  CHECK(grouped.router.topk_groups == 1);
  CHECK(grouped.router.scale == 16.0);
  // Plain greedy routing ignores the groups, as transformers does.
  CHECK(sample("deepseek_v2", {{"n_group", 3}}).router.groups == 1);
  const ModelConfig alone =
      sample("deepseek_v2", {{"n_shared_experts", nullptr}});
  CHECK(alone.shared_expert == SharedExpert::kNone);
  CHECK(alone.layers[1].shared_width == 0);
}
