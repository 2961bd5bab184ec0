// SPDX-License-Identifier: Apache-2.0
#include "chain/by_part.h"

namespace fettle::chain {

using model::Role;

FitPart fit_part_of(Role role) {
  if (model::is_expert_role(role) || role == Role::kExpertConstant) {
    return FitPart::kExperts;
  }
  if (model::kSharedRoles.has(role)) return FitPart::kShared;
  if (model::kDenseRoles.has(role)) return FitPart::kDense;
  if (role == Role::kEmbedTokens) return FitPart::kEmbeddings;
  if (role == Role::kLmHead) return FitPart::kHead;
  const bool packable = model::role_info(role).is_packable();
  if (packable && model::is_attention_role(role)) return FitPart::kMixers;
  return FitPart::kOther;
}

std::string_view fit_part_name(FitPart part) {
  switch (part) {
    case FitPart::kExperts:
      return "experts";
    case FitPart::kShared:
      return "shared experts";
    case FitPart::kDense:
      return "dense MLPs";
    case FitPart::kMixers:
      return "attention and mixers";
    case FitPart::kOther:
      return "routers and norms";
    case FitPart::kEmbeddings:
      return "embeddings";
    case FitPart::kHead:
      return "head";
    case FitPart::kCarried:
      return "carried";
  }
  return "";
}

}  // namespace fettle::chain
