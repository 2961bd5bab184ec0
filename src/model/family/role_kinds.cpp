// SPDX-License-Identifier: Apache-2.0
// What roles have in common.
#include <algorithm>
#include <array>

#include "model/family/weight_roles.h"

namespace fettle::model {
namespace {

using enum Role;

constexpr std::array kAttention{
    kQProj,
    kKProj,
    kVProj,
    kOProj,
    kAttentionGate,
    kQAProj,
    kQBProj,
    kKvAProj,
    kKvBProj};

}  // namespace

bool is_expert_role(Role role) {
  return role_info(role).scope == RoleScope::kExpert;
}

bool is_expert_bias(Role role) {
  return role == kExpertGateBias || role == kExpertUpBias;
}

bool is_down_role(Role role) {
  return role == kExpertRoles.down || role == kSharedRoles.down ||
         role == kDenseRoles.down;
}

bool is_up_role(Role role) {
  return role == kExpertRoles.up || role == kSharedRoles.up ||
         role == kDenseRoles.up;
}

bool is_mlp_role(Role role) {
  return kExpertRoles.has(role) || kSharedRoles.has(role) ||
         kDenseRoles.has(role);
}

bool is_attention_role(Role role) {
  return std::ranges::find(kAttention, role) != kAttention.end();
}

std::vector<Role> attention_roles() {
  return {kAttention.begin(), kAttention.end()};
}

}  // namespace fettle::model
