// SPDX-License-Identifier: Apache-2.0
#include "model/weights/loaded_bytes.h"

#include <algorithm>

#include "model/weights/weight_view.h"
#include "model/weights/weight_visit.h"
#include "store/pinned_memory.h"

namespace fettle::model {
namespace {

std::int64_t dense_bytes(
    const ModelConfig& config, const WeightId& id, at::ScalarType type) {
  return weight_numel(config, id) * static_cast<std::int64_t>(c10::elementSize(
                                        loaded_type(id.role, type)));
}

LoadedBytes::Layer layer_bytes(
    const ModelConfig& config,
    const WeightForms& forms,
    std::int64_t layer,
    at::ScalarType type,
    bool experts_apart) {
  LoadedBytes::Layer bytes;
  std::map<std::int64_t, std::int64_t> experts;
  std::int64_t plain = 0;      // of all experts
  bool packs_experts = false;  // one at least
  for (const WeightId& id : layer_weights(config, layer)) {
    const WeightForm form = forms(id);
    const std::int64_t dense = dense_bytes(config, id, type);
    const bool of_expert = kExpertRoles.has(id.role);
    if (of_expert) experts[id.expert] += dense;
    if (!of_expert || !experts_apart) bytes.unpacked += dense;
    if (form.packed()) {
      packs_experts = packs_experts || of_expert;
      bytes.kept +=
          form.loaded_bytes > 0 ? form.loaded_bytes : form.packed_bytes;
    } else {
      (of_expert ? plain : bytes.kept) += dense;
    }
  }
  // Beside packed ones, plain experts stay.
  if (!experts_apart || packs_experts) bytes.kept += plain;
  for (const auto& [expert, dense] : experts) {
    bytes.expert = std::max(bytes.expert, dense);
  }
  return bytes;
}

}  // namespace

at::ScalarType globals_type(
    const ModelConfig& config,
    const WeightForms& forms,
    at::ScalarType type,
    bool decodes) {
  const auto is_half = [&](Role role) {
    const WeightForm form = forms({role});
    return !form.packed() && form.dtype == at::kBFloat16;
  };
  const bool half = is_half(Role::kEmbedTokens) &&
                    (config.tie_word_embeddings || is_half(Role::kLmHead));
  return decodes && type == at::kFloat && half ? at::kBFloat16 : type;
}

GlobalBytes global_bytes(
    const ModelConfig& config,
    const WeightForms& forms,
    at::ScalarType type,
    bool decodes) {
  const at::ScalarType held = globals_type(config, forms, type, decodes);
  const std::int64_t embeddings =
      dense_bytes(config, {Role::kEmbedTokens}, held);
  const bool tied = config.tie_word_embeddings;
  GlobalBytes bytes;
  bytes.norm = dense_bytes(config, {Role::kFinalNorm}, type);
  bytes.head = tied ? embeddings : dense_bytes(config, {Role::kLmHead}, held);
  bytes.all = bytes.norm + bytes.head + (tied ? 0 : embeddings);
  return bytes;
}

LoadedBytes loaded_bytes(
    const ModelConfig& config,
    const WeightForms& forms,
    at::ScalarType type,
    bool experts_apart) {
  LoadedBytes bytes;
  for (std::int64_t l = 0; l < config.num_layers(); ++l) {
    bytes.layers.push_back(layer_bytes(config, forms, l, type, experts_apart));
  }
  return bytes;
}

std::int64_t staging_bytes(
    const ModelConfig& config, const WeightForms& forms, at::ScalarType type) {
  using Blocks = std::map<std::int64_t, std::int64_t>;  // bytes → how many
  Blocks most;
  std::int64_t most_packed = 0;
  for (std::int64_t l = 0; l < config.num_layers(); ++l) {
    Blocks blocks;
    const auto add = [&](std::int64_t bytes) {
      ++blocks[store::pinned_bytes(bytes)];
    };
    std::int64_t packed = layer_bytes(config, forms, l, type, false).kept;
    const KeptPacked kept = kept_packed(
        config, l, [&](const WeightId& id) { return forms(id).packed(); });
    LayerWeights plain = empty_layer(
        config, l, at::TensorOptions(type).device(at::kMeta), [&](Role role) {
          return kept.contains(role) && !kept.at(role);
        });
    for_each_tensor(plain, [&](const at::Tensor& tensor) {
      packed -= static_cast<std::int64_t>(tensor.nbytes());
      add(static_cast<std::int64_t>(tensor.nbytes()));
    });
    if (packed > 0) add(packed);
    most_packed = std::max(most_packed, packed);
    for (const auto& [bytes, count] : blocks) {
      most[bytes] = std::max(most[bytes], count);
    }
  }
  std::int64_t sum = most_packed;  // as it is read
  for (const auto& [bytes, count] : most) sum += bytes * count;
  // Embeddings and head come one after the other.
  return std::max(
      sum, global_bytes(config, forms, type, /*decodes=*/false).head);
}

KeptPacked kept_packed(
    const ModelConfig& config,
    std::int64_t layer,
    const std::function<bool(const WeightId&)>& is_packed) {
  KeptPacked any;
  for (const WeightId& id : layer_weights(config, layer)) {
    const bool keeps = is_attention_role(id.role) || is_mlp_role(id.role);
    bool& kept = any[id.role];
    kept = kept || (keeps && is_packed(id));
  }
  KeptPacked kept = any;
  for (const MlpRoles& mlp : {kExpertRoles, kSharedRoles, kDenseRoles}) {
    const std::vector<Role> roles = mlp.all();
    const bool one = std::ranges::any_of(
        roles, [&](Role role) { return any.contains(role) && any.at(role); });
    for (const Role role : roles) {
      if (kept.contains(role)) kept[role] = one;
    }
  }
  return kept;
}

}  // namespace fettle::model
