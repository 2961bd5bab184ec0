// SPDX-License-Identifier: Apache-2.0
// Every weight of a family: its role, Hugging Face name and how it is stored.
// Loader, exporter, trimmer and quantizer all work from this one table, and a
// family adds rows, never code.
#pragma once

#include <cstdint>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "model/model_config.h"

namespace fettle::model {

enum class Role {
  kEmbedTokens,        // [V, H]
  kFinalNorm,          // [H]
  kLmHead,             // [V, H]; absent when tied
  kInputNorm,          // [H]
  kPostAttentionNorm,  // [H]
  kQProj,
  kQBias,
  kKProj,
  kKBias,
  kVProj,
  kVBias,
  kOProj,
  kOBias,
  kQNorm,
  kKNorm,
  kQAProj,
  kQABias,
  kQANorm,
  kQBProj,  // MLA
  kKvAProj,
  kKvABias,
  kKvANorm,
  kKvBProj,           // MLA
  kRouter,            // [E, H]
  kRouterCorrection,  // [E]
  kRouterBias,        // [E], Fettle's own: added to the router's logits
  kExpertGate,        // [I, H] per expert
  kExpertUp,          // [I, H] per expert
  kExpertDown,        // [H, I] per expert
  kExpertConstant,    // [E, H], Fettle's own: output of cut neurons' means
  kSharedGate,
  kSharedUp,
  kSharedDown,    // [S, H], [S, H], [H, S]
  kSharedRouter,  // [1, H], sigmoid gate of the shared expert
  kDenseGate,
  kDenseUp,
  kDenseDown,  // [D, H], [D, H], [H, D]
};

// Name of a role in messages and reports, e.g. "expert_down".
std::string_view role_name(Role role);
bool is_expert_role(Role role);     // one tensor per expert
bool is_attention_role(Role role);  // a projection of the attention
bool is_down_role(Role role);       // down_proj of any MLP
bool is_mlp_role(Role role);        // gate, up or down of any MLP

// The three matrices of an MLP: a layer's experts, its shared expert, or what a
// dense layer has.
struct MlpRoles {
  Role gate, up, down;
  bool has(Role role) const {
    return role == gate || role == up || role == down;
  }
};
inline constexpr MlpRoles kExpertRoles{
    Role::kExpertGate, Role::kExpertUp, Role::kExpertDown};
inline constexpr MlpRoles kSharedRoles{
    Role::kSharedGate, Role::kSharedUp, Role::kSharedDown};
inline constexpr MlpRoles kDenseRoles{
    Role::kDenseGate, Role::kDenseUp, Role::kDenseDown};

// One row of a family's table. `name` holds {l} for the layer and {e} for the
// expert. `fused` names the stacked form of an expert role where the family has
// one: gate and up share a [E, 2I, H] tensor (gate rows first), down is
// [E, H, I]. `alias` is a second name under which the tensor is also read.
struct WeightRow {
  Role role;
  std::string_view name;
  std::string_view fused = {};
  std::string_view alias = {};
};

struct Family {
  std::string_view model_type;
  // Fills everything but the layers' "fettle" overrides.
  ModelConfig (*parse)(const JsonObject& config);
  // Writes uniform expert count, width and top-k back under the family's keys,
  // in whichever spelling is there. What other keys say must stay true.
  void (*write_uniform)(
      Json& config,
      std::int64_t experts,
      std::int64_t width,
      std::int64_t top_k);
  std::span<const WeightRow> weights;
};

// All families. Throws UserError naming the known ones on an unknown type.
const Family& find_family(std::string_view model_type);
std::span<const Family> families();

// One tensor that a model of `config` has. Layer and expert are -1 where the
// role has none.
struct WeightId {
  Role role;
  std::int64_t layer = -1;
  std::int64_t expert = -1;
  bool operator==(const WeightId&) const = default;
};

// Every tensor of the model in canonical order: embeddings, layers ascending
// (within a layer in table order, experts ascending), final norm, head.
std::vector<WeightId> model_weights(const ModelConfig& config);
std::vector<WeightId> layer_weights(
    const ModelConfig& config, std::int64_t layer);

std::vector<std::int64_t> weight_shape(
    const ModelConfig& config, const WeightId& id);
std::int64_t weight_numel(const ModelConfig& config, const WeightId& id);
std::string weight_name(const ModelConfig& config, const WeightId& id);

// `pattern` with {l} and {e} replaced by the layer and the expert of `id`.
std::string expand_name(std::string_view pattern, const WeightId& id);

}  // namespace fettle::model
