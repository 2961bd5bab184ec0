// SPDX-License-Identifier: Apache-2.0
// Families with factors, norms of branches and layers of two kinds: what their
// configurations say, and what is refused.
#include <catch2/catch.hpp>
#include <cmath>

#include "core/error.h"
#include "model/family/weight_table.h"
#include "sample_config.h"

using namespace fettle;
using namespace fettle::model;
using fettle::model::testing::sample;

namespace {

struct BlockRefusal {
  std::string family;
  Json changes;
  std::string text;
};

bool has(const ModelConfig& config, Role role, std::int64_t layer) {
  for (const WeightId& id : layer_weights(config, layer)) {
    if (id.role == role) return true;
  }
  return false;
}

void check_all(const std::vector<BlockRefusal>& refusals) {
  for (const auto& [family, changes, text] : refusals) {
    INFO(family << " " << changes.dump());
    CHECK_THROWS_AS(sample(family, changes), UserError);
    CHECK_THROWS_WITH(sample(family, changes), Catch::Contains(text));
  }
}

}  // namespace

TEST_CASE("Granite's multipliers are options of any model") {
  const ModelConfig config = sample(
      "granitemoeshared",
      {{"embedding_multiplier", 12},
       {"residual_multiplier", 0.22},
       {"attention_multiplier", 0.0078125},
       {"logits_scaling", 6.0}});
  CHECK(config.ends.embedding_multiplier == 12.0);
  CHECK(config.block.residual_multiplier == 0.22);
  CHECK(config.attention().softmax_scale == 0.0078125);
  CHECK(config.ends.logits_scaling == 6.0);
  CHECK(config.layers[1].shared_width == 5);
  const ModelConfig plain = sample("granitemoe");
  CHECK(plain.attention().softmax_scale == 1.0);
  CHECK(plain.router.score == RouterScore::kTopkThenSoftmax);
  CHECK(plain.shared_expert == SharedExpert::kNone);
  CHECK(config_json(plain) == plain.json);
}

TEST_CASE("AFMoE's full layers know no positions") {
  const ModelConfig config = sample("afmoe", {{"mup_enabled", true}});
  CHECK(config.layers[0].sliding_window == 1024);
  CHECK(config.layers[1].sliding_window == 0);
  CHECK(config.attention_of(config.layers[0]).rope.dim == 4);
  CHECK(config.attention_of(config.layers[1]).rope.dim == 0);
  CHECK(config.ends.embedding_multiplier == std::sqrt(8.0));
  CHECK_FALSE(config.ends.rounds_embedding_multiplier);
  CHECK_FALSE(config.layers[0].sparse);
  CHECK(config.router.score == RouterScore::kSigmoid);
  CHECK(has(config, Role::kAttentionGate, 0));
  CHECK(has(config, Role::kMlpOutNorm, 0));
  CHECK_FALSE(has(config, Role::kLayerScalar, 0));
  CHECK(sample("afmoe").ends.embedding_multiplier == 1.0);
  const ModelConfig full =
      sample("afmoe", {{"layer_types", {"full_attention", "full_attention"}}});
  CHECK(full.attentions.size() == 1);
  CHECK(full.attention().rope.dim == 0);
}

TEST_CASE("Gemma's full layers have heads and values of their own") {
  const ModelConfig config = sample(
      "gemma4_text",
      {{"num_global_key_value_heads", 1}, {"final_logit_softcapping", 30.0}});
  const AttentionConfig& sliding = config.attention_of(config.layers[0]);
  const AttentionConfig& full = config.attention_of(config.layers[1]);
  CHECK(sliding.head_dim == 4);
  CHECK(sliding.kv_heads == 2);
  CHECK_FALSE(sliding.k_as_v);
  CHECK(sliding.rope.type == "default");
  CHECK(full.head_dim == 6);
  CHECK(full.kv_heads == 1);
  CHECK(full.k_as_v);
  CHECK(full.rope.type == "proportional");
  CHECK(full.rope.theta == 1e6);
  CHECK(full.rope.dim == 6);
  CHECK(full.rope.angles == 0);  // a quarter of 6, in pairs
  CHECK(full.softmax_scale == 1.0);
  CHECK(config.activation == Activation::kGeluTanh);
  CHECK(config.ends.soft_cap == 30.0);
  CHECK(config.ends.rounds_embedding_multiplier);
  CHECK(config.tie_word_embeddings);
  CHECK(has(config, Role::kVProj, 0));
  CHECK_FALSE(has(config, Role::kVProj, 1));
  CHECK(config.layers[0].has_dense_beside_experts());
  CHECK(has(config, Role::kDenseDown, 0));
  CHECK(has(config, Role::kExpertScale, 0));

  // As transformers writes it.
  const Json heads = {{"head_dim", 6}, {"num_key_value_heads", 1}};
  const ModelConfig by_layer =
      sample("gemma4_text", {{"per_layer_config", {{"1", heads}}}});
  CHECK(by_layer.attention_of(by_layer.layers[1]).head_dim == 6);
  CHECK(by_layer.attention_of(by_layer.layers[1]).kv_heads == 1);
  const ModelConfig own = sample("gemma4_text", {{"attention_k_eq_v", false}});
  CHECK(has(own, Role::kVProj, 1));
  CHECK(own.attention_of(own.layers[1]).kv_heads == 2);
}

TEST_CASE("Bad factors are refused by name") {
  check_all(
      {{"mixtral",
        {{"embedding_multiplier", 2.0}},
        "'embedding_multiplier' is 2.0"},
       {"qwen3_moe",
        {{"final_logit_softcapping", 30.0}},
        "'final_logit_softcapping' is 30.0"},
       {"granitemoe", {{"num_local_experts", 0}}, "'num_local_experts' is 0"},
       {"granitemoe",
        {{"residual_multiplier", 0.0}},
        "'residual_multiplier' is 0"},
       {"granitemoe",
        {{"layer_types", {"full_attention"}}},
        "'layer_types' must be a list with one item a layer"},
       {"afmoe", {{"score_func", "softmax"}}, "'score_func'"},
       {"afmoe", {{"route_norm", false}}, "'route_norm' is false"},
       {"afmoe",
        {{"layer_types", {"sliding_attention"}}},
        "'layer_types' must be a list with one item a layer"}});
}

TEST_CASE("Bad options of Gemma are refused by name") {
  const Json heads = {{"head_dim", 6}};
  check_all(
      {{"gemma4_text",
        {{"hidden_size_per_layer_input", 8}},
        "'hidden_size_per_layer_input' is 8; Fettle runs no such Gemma 4"},
       {"gemma4_text",
        {{"num_kv_shared_layers", 1}},
        "'num_kv_shared_layers' is 1"},
       {"gemma4_text",
        {{"enable_moe_block", false}},
        "'enable_moe_block' is false"},
       {"gemma4_text",
        {{"use_bidirectional_attention", "all"}},
        "'use_bidirectional_attention' is \"all\""},
       {"gemma4_text", {{"num_experts", 0}}, "'num_experts' is 0"},
       {"gemma4_text",
        {{"layer_types", {"full_attention", "sliding_attention"}}},
        "'layer_types' ends in \"sliding_attention\""},
       {"gemma4_text",
        {{"layer_types", {"full_attention", "conv"}}},
        "'layer_types' says \"conv\" of layer 1"},
       {"gemma4_text",
        {{"per_layer_config", {{"0", heads}, {"1", heads}}}},
        "'per_layer_config' says {\"head_dim\":6} of layer 0"},
       {"gemma4_text",
        {{"per_layer_config", {{"1", {{"top_k_experts", 1}}}}}},
        "'top_k_experts' is no option of single layers"},
       {"gemma4_text",
        {{"num_global_key_value_heads", 3}},
        "'num_global_key_value_heads' is 3"},
       {"gemma4_text",
        {{"rope_parameters",
          {{"sliding_attention", {{"rope_theta", 1e4}}},
           {"full_attention",
            {{"rope_type", "proportional"},
             {"rope_theta", 1e6},
             {"partial_rotary_factor", 1.5}}}}}},
        "'partial_rotary_factor' is 1.5; it must be at most 1"}});
}
