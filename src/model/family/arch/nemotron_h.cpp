// SPDX-License-Identifier: Apache-2.0
// Nemotron-H and Nemotron-3: each layer is one norm and one mixer, which may be
// Mamba-2, attention that knows no positions, experts, or a dense MLP. MLPs
// have no gate. Source: transformers 5.17, models/nemotron_h.
#include <fmt/format.h>

#include <array>
#include <string>
#include <vector>

#include "model/family/arch/families.h"
#include "model/family/arch/shared_rows.h"
#include "model/family/config_common.h"
#include "model/family/config_mamba.h"
#include "model/family/config_mixers.h"
#include "model/family/config_sparse.h"

namespace fettle::model {
namespace {

constexpr std::string_view kSharedKey = "moe_shared_expert_intermediate_size";
constexpr std::string_view kPattern = "hybrid_override_pattern";

ExpertKeys expert_keys() {
  return {
      {"n_routed_experts", "num_local_experts"},
      8,
      "moe_intermediate_size",
      7688,
      2};
}

enum class Block { kMamba, kAttention, kExperts, kDense };

// In lists, and as a letter of a pattern.
struct BlockName {
  std::string_view name;
  Block block;
};

constexpr auto kBlocks = std::to_array<BlockName>(
    {{"linear_attention", Block::kMamba},
     {"mamba", Block::kMamba},
     {"M", Block::kMamba},
     {"full_attention", Block::kAttention},
     {"attention", Block::kAttention},
     {"*", Block::kAttention},
     {"moe", Block::kExperts},
     {"E", Block::kExperts},
     {"mlp", Block::kDense},
     {"-", Block::kDense}});

Block block_of(const JsonObject& json, std::string_view key, const Json& type) {
  for (const BlockName& known : kBlocks) {
    if (is_text(type, known.name)) return known.block;
  }
  json.refuse(
      key,
      fmt::format(
          "holds {}; Fettle knows linear_attention, full_attention, moe and "
          "mlp here, or in a pattern M, *, E and -",
          type.dump()));
}

std::vector<Block> listed_blocks(const JsonObject& json, std::string_view key) {
  const Json& types = json.at(key);
  if (!types.is_array()) json.refuse(key, "must be a list");
  std::vector<Block> blocks;
  for (const Json& type : types) blocks.push_back(block_of(json, key, type));
  return blocks;
}

std::vector<Block> parse_blocks(const JsonObject& json) {
  for (const std::string_view key : {"layers_block_type", "layer_types"}) {
    if (json.has(key) && !json.at(key).is_null()) {
      return listed_blocks(json, key);
    }
  }
  std::vector<Block> blocks;
  for (const char letter : json.string_or(kPattern, "ME*-")) {
    blocks.push_back(block_of(json, kPattern, std::string(1, letter)));
  }
  return blocks;
}

void place_layers(const JsonObject& json, ModelConfig& config) {
  const std::vector<Block> blocks = parse_blocks(json);
  const auto layers = static_cast<std::int64_t>(blocks.size());
  constexpr std::string_view kCount = "num_hidden_layers";
  if (layers == 0 || read_integer(json, {{kCount}, layers}) != layers) {
    json.refuse(kCount, fmt::format("must be {}, one a layer's type", layers));
  }
  LayerConfig experts = parse_experts(json, expert_keys());
  experts.mixer = MixerKind::kNone;
  experts.shared_width = read_integer(json, {{kSharedKey}, 7688});
  LayerConfig dense;
  dense.mixer = MixerKind::kNone;
  dense.dense_width = read_integer(json, {{"intermediate_size"}, 21504});
  config.layers.clear();
  for (const Block block : blocks) {
    if (block == Block::kExperts && !experts.sparse) {
      json.refuse("n_routed_experts", "is 0; sparse layers have some");
    }
    LayerConfig mixer;
    mixer.mixer =
        block == Block::kMamba ? MixerKind::kMamba : MixerKind::kAttention;
    config.layers.push_back(
        block == Block::kExperts ? experts
        : block == Block::kDense ? dense
                                 : mixer);
  }
}

void parse_mamba(const JsonObject& json, MambaConfig& m) {
  for (const std::string_view older :
       {"mamba_n_groups", "mamba_d_conv", "mamba_conv_bias", "mamba_dt_min"}) {
    if (json.has(older)) json.refuse(older, "is an older name; write the new");
  }
  m.heads = read_integer(json, {{"mamba_num_heads"}, 128});
  m.head_dim = read_integer(json, {{"mamba_head_dim"}, 64});
  m.groups = read_integer(json, {{"n_groups"}, 8});
  m.norm_groups = m.groups;
  m.state_dim = read_integer(json, {{"ssm_state_size"}, 128});
  m.conv_width = parse_conv_width(json, {"conv_kernel", 4});
  m.conv_bias = read_flag(json, "use_conv_bias", true);
  m.bias = read_flag(json, "use_bias", false);
  // The only limit of steps: 'time_step_limit' is read by nobody.
  m.least_step = json.number_or("time_step_min", 0.001);
  check_mamba_groups(json, m, "mamba_num_heads");
  require_value(json, "mamba_hidden_act", "silu");
}

ModelConfig parse(const JsonObject& json) {
  ModelConfig config = parse_common(
      json,
      {.vocab_size = 131072,
       .hidden_size = 4096,
       .layers = 4,
       .heads = 32,
       .kv_heads = 8,
       .max_position = 4096,
       .eos_token_ids = {2}});
  config.norm_eps = read_number(json, {"layer_norm_epsilon", 1e-5});
  config.activation = Activation::kRelu2;
  config.shared_expert = SharedExpert::kPlain;
  parse_gqa(json, {.head_dim = 128}, config);
  config.attention().rope = {};
  config.attention().rope.max_position = config.max_position;
  parse_mamba(json, config.mamba);
  parse_corrected_router(json, {}, config.router);
  require_value(json, "mlp_hidden_act", "relu2");
  require_value(json, "attention_bias", false);
  require_value(json, "sliding_window", nullptr);
  require_value(json, "tie_word_embeddings", false);
  require_value(json, "n_shared_experts", 1);
  require_value(json, "moe_latent_size", nullptr);
  place_layers(json, config);
  return config;
}

constexpr WeightRow kWeights[] = {
    {Role::kEmbedTokens, "model.embeddings.weight"},
    {Role::kInputNorm, "model.layers.{l}.norm.weight"},
    {Role::kQProj, "model.layers.{l}.mixer.q_proj.weight"},
    {Role::kKProj, "model.layers.{l}.mixer.k_proj.weight"},
    {Role::kVProj, "model.layers.{l}.mixer.v_proj.weight"},
    {Role::kOProj, "model.layers.{l}.mixer.o_proj.weight"},
    {Role::kMambaIn, "model.layers.{l}.mixer.in_proj.weight"},
    {Role::kMambaInBias, "model.layers.{l}.mixer.in_proj.bias"},
    {.role = Role::kConvWeight,
     .name = "model.layers.{l}.mixer.conv1d.weight",
     .by_channel = true},
    {Role::kConvBias, "model.layers.{l}.mixer.conv1d.bias"},
    {Role::kMambaLogRate, "model.layers.{l}.mixer.A_log"},
    {Role::kMambaStepBias, "model.layers.{l}.mixer.dt_bias"},
    {Role::kMambaSkip, "model.layers.{l}.mixer.D"},
    {Role::kMambaNorm, "model.layers.{l}.mixer.norm.weight"},
    {Role::kMambaOut, "model.layers.{l}.mixer.out_proj.weight"},
    {Role::kMambaOutBias, "model.layers.{l}.mixer.out_proj.bias"},
    // The norm of a layer that has an MLP and no mixer.
    {Role::kPostAttentionNorm, "model.layers.{l}.norm.weight"},
    {Role::kRouter, "model.layers.{l}.mixer.gate.weight"},
    {Role::kRouterCorrection,
     "model.layers.{l}.mixer.gate.e_score_correction_bias"},
    own_row(Role::kRouterBias, "model.layers.{l}.mixer.gate.logit_bias"),
    {Role::kExpertUp,
     "model.layers.{l}.mixer.experts.{e}.up_proj.weight",
     "model.layers.{l}.mixer.experts.up_proj"},
    {Role::kExpertDown,
     "model.layers.{l}.mixer.experts.{e}.down_proj.weight",
     "model.layers.{l}.mixer.experts.down_proj"},
    own_row(Role::kExpertConstant, "model.layers.{l}.mixer.experts.constant"),
    {Role::kSharedUp, "model.layers.{l}.mixer.shared_experts.up_proj.weight"},
    {Role::kSharedDown,
     "model.layers.{l}.mixer.shared_experts.down_proj.weight"},
    {Role::kDenseUp, "model.layers.{l}.mixer.up_proj.weight"},
    {Role::kDenseDown, "model.layers.{l}.mixer.down_proj.weight"},
    {Role::kFinalNorm, "model.norm_f.weight"},
    {Role::kLmHead, "lm_head.weight"},
};

}  // namespace

Family nemotron_h_family() {
  return {
      .model_type = "nemotron_h",
      .parse = parse,
      .write_uniform = write_experts_by<expert_keys>,
      .weights = kWeights,
      .shared_key = kSharedKey,
      .shared_in_neurons = true,
      .body = "backbone."};
}

}  // namespace fettle::model
