// SPDX-License-Identifier: Apache-2.0
// Families whose layers differ in what mixes their tokens.
#include <catch2/catch.hpp>

#include "model/family/weight_table.h"
#include "sample_config.h"

using namespace fettle;
using namespace fettle::model;
using fettle::model::testing::sample;

namespace {

ModelConfig by_default(const std::string& family, const Json& changes = {}) {
  Json json = {{"model_type", family}};
  if (!changes.is_null()) json.update(changes);
  return parse_model_config(json, "config.json");
}

// From transformers' configuration classes, which hold the released shapes.
ModelConfig lfm2_8b() {
  Json types = Json::array();
  for (int l = 0; l < 24; ++l) {
    const bool attention =
        l == 2 || l == 6 || l == 10 || l == 14 || l == 18 || l == 21;
    types.push_back(attention ? "full_attention" : "conv");
  }
  return by_default(
      "lfm2_moe", {{"num_hidden_layers", 24}, {"layer_types", types}});
}

}  // namespace

TEST_CASE("released hybrids have as many parameters as in transformers") {
  // With the biases of 22 layers' 32 experts.
  CHECK(lfm2_8b().parameters() == 8'339'929'856 + 22 * 32);
  CHECK(by_default("qwen3_next").parameters() == 79'674'391'296);
  CHECK(by_default("qwen3_5_moe_text").parameters() == 34'660'610'688);
}

TEST_CASE("LFM2 is short convolutions and some attention") {
  const ModelConfig config = lfm2_8b();
  CHECK(config.layers[1].mixer == MixerKind::kShortConv);
  CHECK(config.layers[2].mixer == MixerKind::kAttention);
  CHECK_FALSE(config.layers[1].sparse);
  CHECK(config.layers[2].sparse);
  CHECK(config.short_conv.width == 3);
  CHECK_FALSE(config.short_conv.bias);
  CHECK(config.norm_eps == 1e-5);
  CHECK(config.attention().rope.theta == 1e6);
  CHECK(config.router.correction_bias);
  CHECK(config.router.added_sum == 1e-6);
  CHECK(config.tie_word_embeddings);
  CHECK_FALSE(
      sample("lfm2_moe", {{"tie_embedding", false}}).tie_word_embeddings);
}

TEST_CASE("each fourth layer of Qwen3-Next and Qwen3.5 has attention") {
  for (const char* family : {"qwen3_next", "qwen3_5_moe_text"}) {
    const ModelConfig config = by_default(family);
    CHECK(config.layers[2].mixer == MixerKind::kGatedDelta);
    CHECK(config.layers[3].mixer == MixerKind::kAttention);
    CHECK(config.layers[0].shared_width == 512);
    CHECK(config.attention().gate == OutputGate::kInQuery);
    CHECK(config.attention().rope.dim == 64);
    CHECK(config.norm_offset == 1.0);
    CHECK(config.router.renormalize);
    CHECK(config.gated_delta.grouped == (config.family == "qwen3_next"));
    const ModelConfig second =
        by_default(family, {{"full_attention_interval", 2}});
    CHECK(second.layers[1].mixer == MixerKind::kAttention);
  }
}

// transformers 5 writes its default beside the rotary options that it read.
TEST_CASE("a rotary option tells the rotated part before config.json does") {
  const Json rope = {{"rope_theta", 1e4}, {"partial_rotary_factor", 0.5}};
  const ModelConfig config = by_default(
      "qwen3_5_moe_text",
      {{"rope_parameters", rope}, {"partial_rotary_factor", 0.25}});
  CHECK(config.attention().rope.dim == 128);
}

TEST_CASE("weights of a mixer are only where a layer has it") {
  const ModelConfig config = sample("qwen3_next");
  const auto has = [&](std::int64_t layer, Role role) {
    return role_info(role).exists(config, config.layers[layer]);
  };
  for (const Role role :
       {Role::kQProj, Role::kKProj, Role::kVProj, Role::kOProj, Role::kQNorm}) {
    CHECK_FALSE(has(0, role));
    CHECK(has(1, role));
  }
  for (const Role role :
       {Role::kConvWeight,
        Role::kDeltaQkvGate,
        Role::kDeltaBetaDecay,
        Role::kDeltaLogRate,
        Role::kDeltaOut}) {
    CHECK(has(0, role));
    CHECK_FALSE(has(1, role));
  }
  CHECK_FALSE(has(0, Role::kDeltaQkv));
  CHECK_FALSE(has(0, Role::kConvBias));
  CHECK_FALSE(has(0, Role::kShortConvIn));
}

TEST_CASE("a layer may lack its mixer or its MLP") {
  ModelConfig config = sample("lfm2_moe");
  config.layers[0].mixer = MixerKind::kNone;
  config.layers[1] = {};
  const auto has = [&](std::int64_t layer, Role role) {
    return role_info(role).exists(config, config.layers[layer]);
  };
  CHECK_FALSE(has(0, Role::kInputNorm));
  CHECK(has(0, Role::kPostAttentionNorm));
  CHECK(has(0, Role::kDenseUp));
  CHECK(has(1, Role::kInputNorm));
  CHECK_FALSE(has(1, Role::kPostAttentionNorm));
  CHECK_FALSE(has(1, Role::kDenseUp));
}

TEST_CASE("convolutions are stored by channel") {
  const WeightId id{Role::kConvWeight, 0};
  const ModelConfig config = sample("qwen3_5_moe_text");
  using Shape = std::vector<std::int64_t>;
  // Queries and keys of 2 heads of 3, values of 4 heads of 2.
  CHECK(weight_shape(config, id) == Shape{20, 4});
  CHECK(stored_shape(config, id) == Shape{20, 1, 4});
  CHECK(weight_shape(config, {Role::kQProj, 1}) == Shape{2 * 2 * 8, 8});
  CHECK(weight_shape(config, {Role::kDeltaGate, 0}) == Shape{8, 8});
}
