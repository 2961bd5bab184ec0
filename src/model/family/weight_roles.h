// SPDX-License-Identifier: Apache-2.0
// The roles that a weight can have in a model, and what is known of each: one
// row of the table in weight_roles.cpp. Loader, trimmer, quantizer, tuner and
// exporters all ask it, so that a new kind of weight is described once.
#pragma once

#include <cstdint>
#include <span>
#include <string_view>
#include <vector>

#include "model/family/model_config.h"

namespace fettle::model {

// Sizes as in CONTRIBUTING.md: V vocabulary, H hidden, E experts, I width of an
// expert, S of the shared expert, D of a dense layer's MLP.
enum class Role {
  kEmbedTokens,
  kFinalNorm,
  kLmHead,  // absent when tied
  kInputNorm,
  kAttentionOutNorm,   // of what the attention gives
  kPostAttentionNorm,  // of the MLP's input
  kMlpOutNorm,         // of what the MLPs give
  // Of a dense MLP and experts side by side: of what each gives, and of the
  // experts' input.
  kDenseOutNorm,
  kExpertsNorm,
  kExpertsOutNorm,
  kLayerScalar,
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
  kAttentionGate,
  kSinks,  // a logit for each head
  // Latent attention (MLA)
  kQAProj,
  kQABias,
  kQANorm,
  kQBProj,
  kKvAProj,
  kKvABias,
  kKvANorm,
  kKvBProj,
  kRouter,
  kRouterCorrection,  // added to the scores for the choice alone
  kRouterBias,        // added to the router's logits
  kRouterNorm,        // of the router's input
  kExpertScale,       // of an expert's mixing weights
  kExpertGate,
  kExpertUp,
  kExpertDown,
  kExpertGateBias,
  kExpertUpBias,
  kExpertConstant,  // added to an expert's output: down's bias, or what cut
                    // neurons gave on average
  kSharedGate,
  kSharedUp,
  kSharedDown,
  kSharedRouter,  // sigmoid gate of the shared expert
  kDenseGate,
  kDenseUp,
  kDenseDown,
};

// How often a model has a weight of a role.
enum class RoleScope {
  kModel,   // once
  kLayer,   // once in a layer
  kExpert,  // once for each expert of a layer
  kRows,    // once in a layer, with a row for each expert: [E, ..]
};

enum class RoleKind {
  kMatrix,    // multiplied by activations, or looked up: may be packed
  kVector,    // norms, biases, constants: never packed
  kDecision,  // decides on experts: never packed, float32 in computation
};

struct RoleInfo {
  Role role;
  std::string_view name;  // in messages, plans and reports: "expert_down"
  RoleScope scope;
  RoleKind kind;
  Role site;  // the role whose weight has the same input; itself, if none
  // Whether a layer has it; of a role of RoleScope::kModel, whether the model
  // does.
  bool (*exists)(const ModelConfig& config, const LayerConfig& layer);
  // Its shape; `width` is the expert's I, for roles of RoleScope::kExpert.
  std::vector<std::int64_t> (*shape)(
      const ModelConfig& config, const LayerConfig& layer, std::int64_t width);

  bool is_packable() const { return kind == RoleKind::kMatrix; }
};

const RoleInfo& role_info(Role role);
// All roles, in the order of the enumeration.
std::span<const RoleInfo> role_infos();

std::string_view role_name(Role role);
bool is_expert_role(Role role);     // one tensor per expert
bool is_expert_bias(Role role);     // of gate or up, a value a neuron
bool is_attention_role(Role role);  // a projection of the attention
bool is_down_role(Role role);       // down_proj of any MLP
bool is_up_role(Role role);         // up_proj of any MLP
bool is_mlp_role(Role role);        // gate, up or down of any MLP

// The projections of the attention, whichever a family has.
std::vector<Role> attention_roles();

// The three matrices of an MLP: a layer's experts, its shared expert, or what a
// dense layer has.
struct MlpRoles {
  Role gate, up, down;
  bool has(Role role) const {
    return role == gate || role == up || role == down;
  }
  std::vector<Role> all() const { return {gate, up, down}; }
};
inline constexpr MlpRoles kExpertRoles{
    Role::kExpertGate, Role::kExpertUp, Role::kExpertDown};
inline constexpr MlpRoles kSharedRoles{
    Role::kSharedGate, Role::kSharedUp, Role::kSharedDown};
inline constexpr MlpRoles kDenseRoles{
    Role::kDenseGate, Role::kDenseUp, Role::kDenseDown};

}  // namespace fettle::model
