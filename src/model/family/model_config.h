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
#include "model/family/attention_config.h"
#include "model/family/block_config.h"
#include "model/family/mixer_config.h"
#include "model/family/tensor_names.h"

namespace fettle::model {

enum class RouterScore { kSoftmaxThenTopk, kTopkThenSoftmax, kSigmoid };
enum class GroupScore { kMax, kTopTwoSum };
// What experts outside a token's groups score in the choice.
enum class OutsideGroups { kZero, kMinusInfinity };
enum class SharedExpert { kNone, kPlain, kSigmoidGated };
using kernels::Activation;
using kernels::inputs_of;

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
  // The router sees the residual under a norm of its own, not what the experts
  // see: x / rms(x) * a stored weight [H] / sqrt(H).
  bool own_norm = false;
  bool expert_scales = false;  // mixing weights times a number of the expert
};

struct LayerConfig {
  bool sparse = false;
  // Of a dense layer's MLP, or of one beside the experts; 0: none.
  std::int64_t dense_width = 0;
  std::int64_t top_k = 0;                   // experts per token
  std::vector<std::int64_t> expert_widths;  // size: number of experts
  bool has_constants = false;     // [E, H] added to experts' outputs, stored
  std::int64_t shared_width = 0;  // 0: no shared expert
  // Experts that work on every token, ascending; top_k counts them, the router
  // chooses the rest. See router.h.
  std::vector<std::int64_t> condensers = {};
  bool router_bias = false;         // [E] added to the router's logits, stored
  std::int64_t sliding_window = 0;  // 0: full attention
  std::size_t attention = 0;        // which of ModelConfig::attentions
  MixerKind mixer = MixerKind::kAttention;

  bool has_mixer() const { return mixer != MixerKind::kNone; }
  bool has_mlp() const { return sparse || dense_width > 0; }
  std::int64_t num_experts() const {
    return static_cast<std::int64_t>(expert_widths.size());
  }
  std::int64_t total_width() const;  // sum of expert_widths
  bool has_dense() const { return dense_width > 0; }
  bool has_dense_beside_experts() const { return sparse && dense_width > 0; }
  bool operator==(const LayerConfig&) const = default;
};

struct ModelConfig {
  std::string family;  // model_type; within a larger model, the text's
  TensorNames names;
  std::int64_t vocab_size = 0;
  std::int64_t hidden_size = 0;
  std::int64_t max_position = 0;
  double norm_eps = 1e-6;
  // Added to the weights of all norms but a mixer's own and the latents'.
  double norm_offset = 0.0;
  double latent_norm_eps = 1e-6;  // MLA's norms of the compressed latents
  bool tie_word_embeddings = false;
  SharedExpert shared_expert = SharedExpert::kNone;
  Activation activation = Activation::kSilu;   // of every MLP
  bool expert_bias = false;                    // of experts' gate and up
  std::vector<AttentionConfig> attentions{1};  // the kinds that layers have
  ShortConvConfig short_conv;                  // of layers that have one
  GatedDeltaConfig gated_delta;                // of layers that have one
  MambaConfig mamba;                           // of layers that have one
  RouterConfig router;
  BlockConfig block;
  EndsConfig ends;
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
// Where all sparse layers are alike and the family's keys can say so, those are
// updated and the "fettle" key is left out.
Json config_json(const ModelConfig& config);

}  // namespace fettle::model
