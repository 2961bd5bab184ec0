// SPDX-License-Identifier: Apache-2.0
// Options that change the forward pass and impossible values: each is refused
// with its key and value, in one line.
#include <catch2/catch.hpp>

#include "core/error.h"
#include "sample_config.h"

using namespace fettle;
using namespace fettle::model;
using fettle::model::testing::sample;

namespace {

struct Refusal {
  std::string family;
  Json changes;
  std::string text;
};

void check(const Refusal& refusal) {
  INFO(refusal.family << " " << refusal.changes.dump());
  CHECK_THROWS_AS(sample(refusal.family, refusal.changes), UserError);
  CHECK_THROWS_WITH(
      sample(refusal.family, refusal.changes), Catch::Contains(refusal.text));
}

}  // namespace

TEST_CASE("an unknown family is named with the known ones") {
  check({"mixtral", {{"model_type", "gpt2"}}, "model_type 'gpt2'"});
  check(
      {"mixtral",
       {{"model_type", "gpt2"}},
       "minimax_m2, mixtral, nemotron_h, olmoe"});
  check({"mixtral", {{"model_type", 3}}, "'model_type' must be a string"});
}

TEST_CASE("options that Fettle does not know are named") {
  for (const Refusal& refusal : std::vector<Refusal>{
           {"mixtral", {{"hidden_act", "gelu"}}, "'hidden_act' is \"gelu\""},
           {"olmoe",
            {{"quantization_config", {{"quant_method", "bitsandbytes"}}}},
            "'quant_method' is 'bitsandbytes'; Fettle reads fp8"},
           {"deepseek_v2", {{"mlp_bias", true}}, "'mlp_bias' is true"},
           {"deepseek_v2", {{"moe_layer_freq", 2}}, "'moe_layer_freq' is 2"},
           {"deepseek_v2", {{"norm_topk_prob", true}}, "'norm_topk_prob'"},
           {"deepseek_v2", {{"scoring_func", "sigmoid"}}, "'scoring_func'"},
           {"deepseek_v2", {{"topk_method", "noaux_tc"}}, "'noaux_tc'"},
           {"deepseek_v2", {{"sliding_window", 4}}, "'sliding_window' is 4"},
           {"deepseek_v3", {{"scoring_func", "softmax"}}, "'scoring_func'"},
           {"deepseek_v3", {{"topk_method", "greedy"}}, "'topk_method'"},
           {"deepseek_v3", {{"partial_rotary_factor", 0.5}}, "is 0.5"},
           {"ernie4_5_moe", {{"use_bias", true}}, "'use_bias' is true"},
           {"gpt_oss", {{"swiglu_limit", 5.0}}, "'swiglu_limit' is 5"},
           {"gpt_oss", {{"hidden_act", "gelu"}}, "'hidden_act' is \"gelu\""},
           {"gpt_oss", {{"num_local_experts", 0}}, "a gpt-oss layer has"},
           {"minimax_m2", {{"scoring_func", "softmax"}}, "'scoring_func'"},
           {"minimax_m2", {{"use_routing_bias", false}}, "'use_routing_bias'"},
           {"minimax_m2", {{"use_qk_norm", false}}, "'use_qk_norm' is false"},
           {"minimax_m2", {{"qk_norm_type", "per_head"}}, "'qk_norm_type'"},
           {"minimax_m2",
            {{"shared_intermediate_size", 8}},
            "'shared_intermediate_size' is 8"},
           {"minimax_m2",
            {{"attn_type_list", {1, 0}}},
            "'attn_type_list' names layers without full attention"},
           {"mellum",
            {{"rope_scaling", {{"rope_type", "linear"}}}},
            "'rope_scaling' is"},
           {"mellum",
            {{"rope_parameters", {{"rope_theta", 1e4}}}},
            "'rope_parameters' must hold options for each type of layer"},
           {"mellum",
            {{"rope_parameters", {{"sliding_attention", {{"a", 1}}}}}},
            "'full_attention' is missing"},
           {"mellum",
            {{"rope_parameters",
              {{"full_attention", {{"rope_type", "default"}}}}}},
            "'rope_theta' is missing"},
           {"glm4_moe_lite",
            {{"mlp_layer_types", {"sparse", "conv"}}},
            "'mlp_layer_types' holds \"conv\""},
           {"olmoe", {{"sliding_window", 4}}, "'sliding_window' is 4"},
           {"qwen2_moe", {{"partial_rotary_factor", 0.5}}, "is 0.5"}}) {
    check(refusal);
  }
}

TEST_CASE("impossible values are named") {
  for (const Refusal& refusal : std::vector<Refusal>{
           {"mixtral", {{"num_hidden_layers", 0}}, "'num_hidden_layers' is 0"},
           {"mixtral", {{"num_hidden_layers", 1000000}}, "is 1000000"},
           {"mixtral", {{"hidden_size", -8}}, "'hidden_size' is -8"},
           {"mixtral", {{"hidden_size", "8"}}, "must be an integer"},
           {"mixtral", {{"hidden_size", nullptr}}, "must be an integer"},
           {"mixtral", {{"vocab_size", 1LL << 40}}, "'vocab_size' is"},
           {"mixtral", {{"rms_norm_eps", 0.0}}, "'rms_norm_eps' is 0"},
           {"mixtral", {{"sliding_window", 0}}, "'sliding_window' is 0"},
           {"mixtral",
            {{"num_experts_per_tok", 5}},
            "'num_experts_per_tok' is 5"},
           {"mixtral", {{"num_local_experts", 0}}, "'num_local_experts' is 0"},
           {"olmoe", {{"num_experts", 0}}, "'num_experts' is 0"},
           {"deepseek_v2",
            {{"n_routed_experts", 0}},
            "'n_routed_experts' is 0"},
           {"mixtral", {{"num_attention_heads", 3}}, "does not divide"},
           {"mixtral",
            {{"num_attention_heads", 3}, {"num_key_value_heads", 3}},
            "'num_attention_heads' is 3"},
           {"mixtral", {{"head_dim", 3}}, "'head_dim' makes heads 3 wide"},
           {"mixtral",
            {{"num_attention_heads", 8}, {"num_key_value_heads", 8}},
            "'num_attention_heads' makes heads 1 wide"}}) {
    check(refusal);
  }
}

TEST_CASE("impossible values of single families and of whole models") {
  for (const Refusal& refusal : std::vector<Refusal>{
           {"olmoe", {{"head_dim", 6}}, "'head_dim' is 6"},
           {"olmoe", {{"clip_qkv", -1.0}}, "'clip_qkv' is -1"},
           {"qwen3_moe", {{"decoder_sparse_step", 0}}, "'decoder_sparse_step'"},
           {"qwen3_moe", {{"mlp_only_layers", 1}}, "'mlp_only_layers' must be"},
           {"qwen3_moe",
            {{"mlp_only_layers", {-1}}},
            "'mlp_only_layers' holds -1"},
           {"deepseek_v2", {{"num_key_value_heads", 1}}, "latent attention"},
           {"deepseek_v2",
            {{"qk_rope_head_dim", 3}},
            "'qk_rope_head_dim' is 3"},
           {"deepseek_v2",
            {{"num_experts_per_tok", nullptr}},
            "'num_experts_per_tok' must be an integer"},
           {"deepseek_v2",
            {{"topk_method", "group_limited_greedy"}},
            "'n_group' is missing"},
           {"deepseek_v2",
            {{"topk_method", "group_limited_greedy"},
             {"n_group", 3},
             {"topk_group", 1}},
            "'n_group' is 3"},
           {"deepseek_v2",
            {{"topk_method", "group_limited_greedy"},
             {"n_group", 4},
             {"topk_group", 1}},
            "a token can reach only 1"},
           {"mixtral",
            {{"vocab_size", 2000000000}, {"hidden_size", 2000000000}},
            "no such model exists"},
           {"mixtral",
            {{"num_hidden_layers", 1000}, {"num_local_experts", 4000}},
            "experts in all"},
           {"mixtral",
            {{"num_hidden_layers", 1000},
             {"hidden_size", 1000000},
             {"intermediate_size", 1000000}},
            "parameters; no such model exists"}}) {
    check(refusal);
  }
}

TEST_CASE("impossible values of corrected routers and parts of heads") {
  for (const Refusal& refusal : std::vector<Refusal>{
           {"deepseek_v3",
            {{"n_group", 4}, {"topk_group", 2}},
            "'n_group' is 4 for a layer's 4 experts"},
           {"deepseek_v3",
            {{"n_group", 2}, {"topk_group", nullptr}},
            "'topk_group' must be an integer"},
           {"deepseek_v3",
            {{"n_group", 2}, {"topk_group", 3}},
            "'topk_group' is 3"},
           {"dots1", {{"n_routed_experts", 0}}, "'n_routed_experts' is 0"},
           {"minimax_m2",
            {{"num_local_experts", 0}},
            "'num_local_experts' is 0"},
           {"minimax_m2",
            {{"rotary_dim", 4}, {"partial_rotary_factor", 0.35}},
            "'rotary_dim' makes 4 dimensions of a head rotate, but another "
            "option 2"},
           {"minimax_m2", {{"rotary_dim", 8}}, "makes 8 of a head's 6"},
           {"minimax_m2",
            {{"partial_rotary_factor", 0.5}},
            "'partial_rotary_factor' makes 3 of a head's 6"},
           {"glm4_moe", {{"head_dim", 2}}, "makes 1 of a head's 2 dimensions"},
           {"glm4_moe",
            {{"partial_rotary_factor", 1e300}},
            "'partial_rotary_factor' makes 8 of a head's 4"},
           {"glm4_moe_lite",
            {{"mlp_layer_types", {"sparse"}}},
            "'mlp_layer_types' must be a list with one item a layer"},
           {"glm4_moe_lite",
            {{"mlp_layer_types", {"sparse", "dense"}}},
            "'mlp_layer_types' names other layers dense"}}) {
    check(refusal);
  }
}

TEST_CASE("keys that change nothing pass") {
  CHECK_NOTHROW(sample(
      "mixtral",
      {{"architectures", {"MixtralForCausalLM"}},
       {"attention_dropout", 0.1},
       {"router_jitter_noise", 0.1},
       {"output_router_logits", true},
       {"transformers_version", "4.36.0"},
       {"num_nextn_predict_layers", 0},
       {"partial_rotary_factor", 1.0},
       {"logit_scale", 1},
       {"quantization_config", nullptr},
       {"layer_types", {"full_attention", "full_attention"}}}));
}

TEST_CASE("mixers that no layer can have are named") {
  for (const Refusal& refusal : std::vector<Refusal>{
           {"lfm2_moe",
            {{"layer_types", {"conv", "sliding_attention"}}},
            "'layer_types' holds \"sliding_attention\"; Fettle knows \"conv\", "
            "\"full_attention\" here"},
           {"lfm2_moe",
            {{"layer_types", {"conv"}}},
            "'layer_types' must be a list with one item a layer"},
           {"qwen3_next",
            {{"layer_types", {"conv", "full_attention"}}},
            "'layer_types' holds \"conv\""},
           {"qwen3_5_moe_text", {{"sliding_window", 4}}, "'sliding_window'"},
           {"qwen3_5_moe_text", {{"hidden_act", "gelu"}}, "'hidden_act'"},
           {"lfm2_moe", {{"layer_types", nullptr}}, "'layer_types' is missing"},
           {"lfm2_moe", {{"hidden_act", "gelu_pytorch_tanh"}}, "'hidden_act'"},
           {"qwen3_5_moe_text", {{"num_experts", 0}}, "'num_experts' is 0"},
           {"qwen3_next",
            {{"linear_num_value_heads", 3}},
            "'linear_num_value_heads' is 3, no multiple of "
            "'linear_num_key_heads', 2"},
           {"qwen3_next",
            {{"full_attention_interval", 0}, {"layer_types", nullptr}},
            "'full_attention_interval' is 0"},
           {"qwen3_next",
            {{"linear_key_head_dim", 0}},
            "'linear_key_head_dim' is 0"},
           {"qwen3_next",
            {{"linear_conv_kernel_dim", 1}},
            "'linear_conv_kernel_dim' is 1"},
           {"lfm2_moe", {{"num_experts", 0}}, "'num_experts' is 0"},
           {"lfm2_moe", {{"conv_L_cache", 1}}, "'conv_L_cache' is 1"},
           {"lfm2_moe", {{"conv_L_cache", 9}}, "'conv_L_cache' is 9"}}) {
    check(refusal);
  }
}
