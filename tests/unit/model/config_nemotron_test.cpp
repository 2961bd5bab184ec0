// SPDX-License-Identifier: Apache-2.0
// Layers of one mixer or one MLP each, and MLPs without a gate.
#include <catch2/catch.hpp>
#include <utility>
#include <vector>

#include "core/error.h"
#include "model/family/weight_table.h"
#include "model/weights/weight_view.h"
#include "sample_config.h"

using namespace fettle;
using namespace fettle::model;
using fettle::model::testing::sample;
using fettle::model::testing::sample_json;

namespace {

const char* const kNemotron = "nemotron_h";

void refuses_layers(const Json& changes, const std::string& part) {
  CAPTURE(changes.dump());
  CHECK_THROWS_WITH(
      sample(kNemotron, changes), Catch::Matchers::Contains(part));
}

const Json kAllTypes = {
    {"layers_block_type", {"mlp", "moe", "full_attention", "linear_attention"}},
    {"num_hidden_layers", 4}};

}  // namespace

TEST_CASE("A layer of Nemotron is a mixer or an MLP") {
  const ModelConfig config = sample(kNemotron, kAllTypes);
  const auto& layers = config.layers;
  CHECK(layers[0].dense_width == 6);
  CHECK_FALSE(layers[0].has_mixer());
  CHECK(layers[1].expert_widths == std::vector<std::int64_t>(4, 6));
  CHECK(layers[1].shared_width == 5);
  CHECK_FALSE(layers[1].has_mixer());
  CHECK(layers[2].mixer == MixerKind::kAttention);
  CHECK_FALSE(layers[2].has_mlp());
  CHECK(layers[3].mixer == MixerKind::kMamba);
  CHECK(config.attention().rope.dim == 0);
  CHECK(config.attention().head_dim == 4);
  CHECK(config.mamba.norm_groups == 2);
  CHECK(config.mamba.least_step == 0.001);
  CHECK(config.norm_eps == 1e-5);
  CHECK(config.router.score == RouterScore::kSigmoid);
  CHECK(config.router.correction_bias);
  CHECK(inputs_of(config.activation) == 1);
}

TEST_CASE("Lists and patterns of Nemotron's layers say the same") {
  const ModelConfig listed = sample(kNemotron, kAllTypes);
  Json json = sample_json(kNemotron);
  json.update(kAllTypes);
  json.erase("layers_block_type");
  const std::vector<std::pair<std::string, Json>> spellings = {
      {"hybrid_override_pattern", "-E*M"},
      {"layer_types", {"mlp", "moe", "attention", "mamba"}}};
  for (const auto& [key, value] : spellings) {
    Json other = json;
    other[key] = value;
    CHECK((parse_model_config(other, "c").layers == listed.layers));
  }
  // Without either, one of each.
  const ModelConfig plain = parse_model_config(json, "c");
  CHECK(plain.layers[0].mixer == MixerKind::kMamba);
  CHECK(plain.layers[1].sparse);
  CHECK(plain.layers[3].dense_width == 6);
}

TEST_CASE("MLPs without a gate have two matrices") {
  const ModelConfig config = sample(kNemotron, kAllTypes);
  std::vector<std::string> names;
  for (const WeightId& id : layer_weights(config, 1)) {
    if (id.expert <= 0) names.push_back(weight_name(config, id));
  }
  CHECK(
      names == std::vector<std::string>{
                   "backbone.layers.1.norm.weight",
                   "backbone.layers.1.mixer.gate.weight",
                   "backbone.layers.1.mixer.gate.e_score_correction_bias",
                   "backbone.layers.1.mixer.experts.0.up_proj.weight",
                   "backbone.layers.1.mixer.experts.0.down_proj.weight",
                   "backbone.layers.1.mixer.shared_experts.up_proj.weight",
                   "backbone.layers.1.mixer.shared_experts.down_proj.weight"});
  CHECK(layer_weights(config, 0).size() == 3);
  // Of four experts two work on a token.
  CHECK(config.parameters() - config.active_parameters() == 2 * (2 * 6 * 8));
}

TEST_CASE("Rows of experts without a gate are those of up alone") {
  const ModelConfig config = sample(kNemotron);
  LayerWeights layer =
      empty_layer(config, 1, at::kFloat, [](Role) { return true; });
  CHECK(layer.experts.gate_up.sizes() == at::IntArrayRef{4 * 6, 8});
  CHECK(layer.shared.gate_up.sizes() == at::IntArrayRef{5, 8});
  const at::Tensor up = weight_view(layer, {Role::kExpertUp, 1, 2});
  up.copy_(at::ones({6, 8}));
  CHECK(layer.experts.gate_up.narrow(0, 12, 6).equal(up));
  CHECK(layer.experts.gate_up_of(2).equal(up));
  CHECK(layer.device().is_cpu());
}

TEST_CASE("What Nemotron's class does not compute is refused") {
  refuses_layers({{"num_hidden_layers", 3}}, "'num_hidden_layers'");
  refuses_layers(
      {{"layers_block_type", {"linear_attention", "conv"}}}, "\"conv\"");
  refuses_layers({{"layers_block_type", "ME"}}, "must be a list");
  refuses_layers(
      {{"layers_block_type", nullptr}, {"hybrid_override_pattern", "MX"}},
      "holds \"X\"");
  refuses_layers({{"moe_latent_size", 4}}, "'moe_latent_size'");
  refuses_layers({{"mlp_hidden_act", "silu"}}, "'mlp_hidden_act'");
  refuses_layers({{"attention_bias", true}}, "'attention_bias'");
  refuses_layers({{"n_shared_experts", 2}}, "'n_shared_experts'");
  refuses_layers({{"n_routed_experts", 0}}, "'n_routed_experts' is 0");
  refuses_layers({{"n_groups", 3}}, "3 groups do not divide");
  refuses_layers({{"mamba_d_conv", 4}}, "'mamba_d_conv' is an older name");
  refuses_layers({{"tie_word_embeddings", true}}, "'tie_word_embeddings'");
}
