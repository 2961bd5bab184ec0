// SPDX-License-Identifier: Apache-2.0
#include "tune/method/role_kinds.h"

namespace fettle::tune {

const std::vector<model::Role>& expert_roles() {
  static const std::vector<model::Role> kRoles{
      model::Role::kExpertGate,
      model::Role::kExpertUp,
      model::Role::kExpertDown};
  return kRoles;
}

const std::vector<model::Role>& attention_roles() {
  static const std::vector<model::Role> kRoles{
      model::Role::kQProj,
      model::Role::kKProj,
      model::Role::kVProj,
      model::Role::kOProj,
      model::Role::kQAProj,
      model::Role::kQBProj,
      model::Role::kKvAProj,
      model::Role::kKvBProj};
  return kRoles;
}

bool is_tapped(model::Role role) {
  return model::is_expert_role(role) || model::is_attention_role(role);
}

}  // namespace fettle::tune
