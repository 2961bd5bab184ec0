// SPDX-License-Identifier: Apache-2.0
// What a model is, read from config.json: plain values that the forward code
// follows without ever asking for a family's name. Layers may differ in the
// number of experts and every expert in its width, 0 included.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "core/json.h"
#include "kernels/args.h"
#include "model/family/tensor_names.h"

namespace fettle::model {

enum class AttentionKind { kGqa, kMla };
enum class QkNorm { kNone, kHead, kFull };
enum class RouterScore { kSoftmaxThenTopk, kTopkThenSoftmax, kSigmoid };
enum class GroupScore { kMax, kTopTwoSum };
// What experts outside a token's groups score in the choice.
enum class OutsideGroups { kZero, kMinusInfinity };
enum class SharedExpert { kNone, kPlain, kSigmoidGated };
using kernels::Activation;
using kernels::RopePairing;

struct RopeConfig {
  std::string type = "default";  // default, linear, dynamic, yarn, longrope,
                                 // llama3
  double theta = 10000.0;
  double factor = 1.0;
  std::int64_t dim = 0;           // rotated dimensions of a head
  std::int64_t max_position = 0;  // max_position_embeddings
  std::int64_t original_max_position = 0;
  std::optional<double> attention_factor;
  double beta_fast = 32.0;
  double beta_slow = 1.0;
  std::optional<double> mscale;
  std::optional<double> mscale_all_dim;
  bool truncate = true;
  double low_freq_factor = 1.0;
  double high_freq_factor = 4.0;
  std::vector<double> short_factor;
  std::vector<double> long_factor;
  RopePairing pairing = RopePairing::kHalf;
};

struct AttentionConfig {
  AttentionKind kind = AttentionKind::kGqa;
  std::int64_t heads = 0;
  std::int64_t kv_heads = 0;
  std::int64_t head_dim = 0;    // of queries and keys
  std::int64_t v_head_dim = 0;  // of values; equal to head_dim under GQA
  bool qkv_bias = false;        // under MLA: bias of q_a and kv_a
  bool o_bias = false;
  QkNorm qk_norm = QkNorm::kNone;
  std::optional<double> clip_qkv;
  double softmax_scale = 0.0;
  // MLA only.
  std::int64_t q_lora_rank = 0;  // 0: one q_proj
  std::int64_t kv_lora_rank = 0;
  std::int64_t qk_nope_head_dim = 0;
  RopeConfig rope = {};
};

struct RouterConfig {
  RouterScore score = RouterScore::kSoftmaxThenTopk;
  bool renormalize = false;
  std::int64_t groups = 1;       // n_group
  std::int64_t topk_groups = 1;  // topk_group
  GroupScore group_score = GroupScore::kMax;
  OutsideGroups outside_groups = OutsideGroups::kZero;
  // Renormalised weights are divided by max(their sum, least_sum) + added_sum.
  double least_sum = 0.0;
  double added_sum = 0.0;
  double scale = 1.0;  // routed_scaling_factor
  bool correction_bias = false;
};

struct LayerConfig {
  bool sparse = false;
  std::int64_t dense_width = 0;             // of a dense layer's MLP
  std::int64_t top_k = 0;                   // experts per token
  std::vector<std::int64_t> expert_widths;  // size: number of experts
  bool has_constants = false;               // [E, H] constant outputs stored
  std::int64_t shared_width = 0;            // 0: no shared expert
  // Experts that work on every token, ascending; top_k counts them, the router
  // chooses the rest. See router.h.
  std::vector<std::int64_t> condensers = {};
  bool router_bias = false;         // [E] added to the router's logits, stored
  std::int64_t sliding_window = 0;  // 0: full attention
  std::size_t attention = 0;        // which of ModelConfig::attentions

  std::int64_t num_experts() const {
    return static_cast<std::int64_t>(expert_widths.size());
  }
  std::int64_t total_width() const;  // sum of expert_widths
  bool operator==(const LayerConfig&) const = default;
};

struct ModelConfig {
  std::string family;  // model_type; within a larger model, the text's
  TensorNames names;
  std::int64_t vocab_size = 0;
  std::int64_t hidden_size = 0;
  std::int64_t max_position = 0;
  double norm_eps = 1e-6;
  double latent_norm_eps = 1e-6;  // MLA's norms of the compressed latents
  bool tie_word_embeddings = false;
  SharedExpert shared_expert = SharedExpert::kNone;
  Activation activation = Activation::kSilu;   // of every MLP's gate
  std::vector<AttentionConfig> attentions{1};  // the kinds that layers have
  RouterConfig router;
  std::vector<LayerConfig> layers;
  std::vector<std::int64_t> eos_token_ids;
  Json json;  // config.json as read, for writing it back

  std::int64_t num_layers() const {
    return static_cast<std::int64_t>(layers.size());
  }
  // The first kind of attention: the only one in most families.
  AttentionConfig& attention() { return attentions.front(); }
  const AttentionConfig& attention() const { return attentions.front(); }
  const AttentionConfig& attention_of(const LayerConfig& layer) const {
    return attentions.at(layer.attention);
  }
  std::int64_t parameters() const;
  // Parameters that work on one token, experts counted at their mean width.
  std::int64_t active_parameters() const;
};

// Reads config.json of `folder`; ragged widths come from its "fettle" key
// (see config_json). Throws UserError naming what is unknown or impossible.
ModelConfig read_model_config(const std::string& folder);

// The same from parsed JSON; `subject` names it in errors.
ModelConfig parse_model_config(const Json& json, const std::string& subject);

// config.json for `config`: its json with, where layers or experts differ from
// the family's own keys, {"fettle": {"format": 1, "layers": [{"top_k": K,
// "expert_widths": [..], "has_constants": bool}, ..]}}, null for a dense layer.
// Where a layer has condensers or a router bias, the format is 2 and layers
// also say {"condensers": [..], "router_bias": bool}.
// Where every sparse layer has one and the same expert count, width and top_k
// and nothing of Fettle's own, and the family's keys can say so, those are
// updated and the "fettle" key is left out.
Json config_json(const ModelConfig& config);

}  // namespace fettle::model
