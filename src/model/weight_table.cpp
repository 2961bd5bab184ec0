// SPDX-License-Identifier: Apache-2.0
#include "model/weight_table.h"

#include <algorithm>

#include "core/error.h"

namespace fettle::model {
namespace {

bool attention_has(const AttentionConfig& attention, Role role) {
  const bool mla = attention.kind == AttentionKind::kMla;
  const bool low_rank = mla && attention.q_lora_rank > 0;
  switch (role) {
    case Role::kQProj:
      return !low_rank;
    case Role::kKProj:
    case Role::kVProj:
      return !mla;
    case Role::kQBias:
    case Role::kKBias:
    case Role::kVBias:
      return !mla && attention.qkv_bias;
    case Role::kOProj:
      return true;
    case Role::kOBias:
      return attention.o_bias;
    case Role::kQNorm:
    case Role::kKNorm:
      return attention.qk_norm != QkNorm::kNone;
    case Role::kQAProj:
    case Role::kQANorm:
    case Role::kQBProj:
      return low_rank;
    case Role::kQABias:
      return low_rank && attention.qkv_bias;
    case Role::kKvABias:
      return mla && attention.qkv_bias;
    default:
      return mla;  // the rest of MLA's
  }
}

// Whether a layer of this shape has the weight.
bool layer_has(const ModelConfig& config, const LayerConfig& layer, Role role) {
  switch (role) {
    case Role::kEmbedTokens:
    case Role::kFinalNorm:
    case Role::kLmHead:
      return false;
    case Role::kInputNorm:
    case Role::kPostAttentionNorm:
      return true;
    case Role::kRouter:
    case Role::kExpertGate:
    case Role::kExpertUp:
    case Role::kExpertDown:
      return layer.sparse;
    case Role::kRouterCorrection:
      return layer.sparse && config.router.correction_bias;
    case Role::kRouterBias:
      return layer.sparse && layer.router_bias;
    case Role::kExpertConstant:
      return layer.sparse && layer.has_constants;
    case Role::kSharedGate:
    case Role::kSharedUp:
    case Role::kSharedDown:
      return layer.sparse && layer.shared_width > 0;
    case Role::kSharedRouter:
      return layer.sparse && layer.shared_width > 0 &&
             config.shared_expert == SharedExpert::kSigmoidGated;
    case Role::kDenseGate:
    case Role::kDenseUp:
    case Role::kDenseDown:
      return !layer.sparse;
    default:
      return attention_has(config.attention, role);
  }
}

std::vector<std::int64_t> attention_shape(
    const ModelConfig& config, Role role) {
  const AttentionConfig& a = config.attention;
  const std::int64_t hidden = config.hidden_size;
  const std::int64_t query = a.heads * a.head_dim;
  const std::int64_t key = a.kv_heads * a.head_dim;
  const bool per_head = a.qk_norm == QkNorm::kHead;
  switch (role) {
    case Role::kQProj:
      return {query, hidden};
    case Role::kQBias:
      return {query};
    case Role::kKProj:
    case Role::kVProj:
      return {key, hidden};
    case Role::kKBias:
    case Role::kVBias:
      return {key};
    case Role::kOProj:
      return {hidden, a.heads * a.v_head_dim};
    case Role::kOBias:
      return {hidden};
    case Role::kQNorm:
      return {per_head ? a.head_dim : query};
    case Role::kKNorm:
      return {per_head ? a.head_dim : key};
    case Role::kQAProj:
      return {a.q_lora_rank, hidden};
    case Role::kQABias:
    case Role::kQANorm:
      return {a.q_lora_rank};
    case Role::kQBProj:
      return {query, a.q_lora_rank};
    case Role::kKvAProj:
      return {a.kv_lora_rank + config.rope.dim, hidden};
    case Role::kKvABias:
      return {a.kv_lora_rank + config.rope.dim};
    case Role::kKvANorm:
      return {a.kv_lora_rank};
    case Role::kKvBProj:
      return {a.heads * (a.qk_nope_head_dim + a.v_head_dim), a.kv_lora_rank};
    default:
      break;
  }
  FETTLE_ASSERT(!"a role of attention");
  return {};
}

const WeightRow& find_row(const ModelConfig& config, Role role) {
  const auto rows = find_family(config.family).weights;
  const auto row = std::find_if(
      rows.begin(), rows.end(), [&](const auto& r) { return r.role == role; });
  FETTLE_ASSERT(row != rows.end());
  return *row;
}

void append_layer(
    const ModelConfig& config, std::int64_t l, std::vector<WeightId>& weights) {
  const LayerConfig& layer = config.layers.at(static_cast<std::size_t>(l));
  for (const WeightRow& row : find_family(config.family).weights) {
    if (!layer_has(config, layer, row.role)) continue;
    if (!is_expert_role(row.role)) {
      weights.push_back({row.role, l, -1});
      continue;
    }
    for (std::int64_t e = 0; e < layer.num_experts(); ++e) {
      weights.push_back({row.role, l, e});
    }
  }
}

}  // namespace

std::vector<WeightId> layer_weights(
    const ModelConfig& config, std::int64_t layer) {
  std::vector<WeightId> weights;
  append_layer(config, layer, weights);
  return weights;
}

std::vector<WeightId> model_weights(const ModelConfig& config) {
  std::vector<WeightId> weights = {{Role::kEmbedTokens}};
  for (std::int64_t l = 0; l < config.num_layers(); ++l) {
    append_layer(config, l, weights);
  }
  weights.push_back({Role::kFinalNorm});
  if (!config.tie_word_embeddings) weights.push_back({Role::kLmHead});
  return weights;
}

std::vector<std::int64_t> weight_shape(
    const ModelConfig& config, const WeightId& id) {
  const std::int64_t hidden = config.hidden_size;
  if (id.role == Role::kEmbedTokens || id.role == Role::kLmHead) {
    return {config.vocab_size, hidden};
  }
  if (id.role == Role::kFinalNorm) return {hidden};
  const LayerConfig& layer =
      config.layers.at(static_cast<std::size_t>(id.layer));
  const auto expert_width = [&] {
    return layer.expert_widths.at(static_cast<std::size_t>(id.expert));
  };
  switch (id.role) {
    case Role::kInputNorm:
    case Role::kPostAttentionNorm:
      return {hidden};
    case Role::kRouter:
    case Role::kExpertConstant:
      return {layer.num_experts(), hidden};
    case Role::kRouterCorrection:
    case Role::kRouterBias:
      return {layer.num_experts()};
    case Role::kExpertGate:
    case Role::kExpertUp:
      return {expert_width(), hidden};
    case Role::kExpertDown:
      return {hidden, expert_width()};
    case Role::kSharedGate:
    case Role::kSharedUp:
      return {layer.shared_width, hidden};
    case Role::kSharedDown:
      return {hidden, layer.shared_width};
    case Role::kSharedRouter:
      return {1, hidden};
    case Role::kDenseGate:
    case Role::kDenseUp:
      return {layer.dense_width, hidden};
    case Role::kDenseDown:
      return {hidden, layer.dense_width};
    default:
      return attention_shape(config, id.role);
  }
}

std::int64_t weight_numel(const ModelConfig& config, const WeightId& id) {
  std::int64_t numel = 1;
  for (const std::int64_t side : weight_shape(config, id)) numel *= side;
  return numel;
}

std::string expand_name(std::string_view pattern, const WeightId& id) {
  std::string name(pattern);
  if (const auto at = name.find("{l}"); at != std::string::npos) {
    name.replace(at, 3, std::to_string(id.layer));
  }
  if (const auto at = name.find("{e}"); at != std::string::npos) {
    name.replace(at, 3, std::to_string(id.expert));
  }
  return name;
}

std::string weight_name(const ModelConfig& config, const WeightId& id) {
  return expand_name(find_row(config, id.role).name, id);
}

}  // namespace fettle::model
