// SPDX-License-Identifier: Apache-2.0
#include <algorithm>
#include <iterator>

#include "core/error.h"
#include "model/weight_table.h"

namespace fettle::model {
namespace {

struct RoleName {
  Role role;
  std::string_view name;
};

constexpr RoleName kRoleNames[] = {
    {Role::kEmbedTokens, "embed_tokens"},
    {Role::kFinalNorm, "final_norm"},
    {Role::kLmHead, "lm_head"},
    {Role::kInputNorm, "input_norm"},
    {Role::kPostAttentionNorm, "post_attention_norm"},
    {Role::kQProj, "q_proj"},
    {Role::kQBias, "q_bias"},
    {Role::kKProj, "k_proj"},
    {Role::kKBias, "k_bias"},
    {Role::kVProj, "v_proj"},
    {Role::kVBias, "v_bias"},
    {Role::kOProj, "o_proj"},
    {Role::kOBias, "o_bias"},
    {Role::kQNorm, "q_norm"},
    {Role::kKNorm, "k_norm"},
    {Role::kQAProj, "q_a_proj"},
    {Role::kQABias, "q_a_bias"},
    {Role::kQANorm, "q_a_norm"},
    {Role::kQBProj, "q_b_proj"},
    {Role::kKvAProj, "kv_a_proj"},
    {Role::kKvABias, "kv_a_bias"},
    {Role::kKvANorm, "kv_a_norm"},
    {Role::kKvBProj, "kv_b_proj"},
    {Role::kRouter, "router"},
    {Role::kRouterCorrection, "router_correction"},
    {Role::kRouterBias, "router_bias"},
    {Role::kExpertGate, "expert_gate"},
    {Role::kExpertUp, "expert_up"},
    {Role::kExpertDown, "expert_down"},
    {Role::kExpertConstant, "expert_constant"},
    {Role::kSharedGate, "shared_gate"},
    {Role::kSharedUp, "shared_up"},
    {Role::kSharedDown, "shared_down"},
    {Role::kSharedRouter, "shared_router"},
    {Role::kDenseGate, "dense_gate"},
    {Role::kDenseUp, "dense_up"},
    {Role::kDenseDown, "dense_down"},
};

}  // namespace

std::string_view role_name(Role role) {
  const auto* found = std::find_if(
      std::begin(kRoleNames), std::end(kRoleNames), [role](const RoleName& r) {
        return r.role == role;
      });
  FETTLE_ASSERT(found != std::end(kRoleNames));
  return found->name;
}

bool is_expert_role(Role role) { return kExpertRoles.has(role); }

bool is_down_role(Role role) {
  return role == kExpertRoles.down || role == kSharedRoles.down ||
         role == kDenseRoles.down;
}

bool is_mlp_role(Role role) {
  return kExpertRoles.has(role) || kSharedRoles.has(role) ||
         kDenseRoles.has(role);
}

bool is_attention_role(Role role) {
  switch (role) {
    case Role::kQProj:
    case Role::kKProj:
    case Role::kVProj:
    case Role::kOProj:
    case Role::kQAProj:
    case Role::kQBProj:
    case Role::kKvAProj:
    case Role::kKvBProj:
      return true;
    default:
      return false;
  }
}

}  // namespace fettle::model
