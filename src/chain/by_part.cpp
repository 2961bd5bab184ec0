// SPDX-License-Identifier: Apache-2.0
#include "chain/by_part.h"

#include <fmt/format.h>

#include "core/bytes.h"

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

std::string ByPart::text() const {
  std::string text;
  for (std::size_t p = 0; p < kFitParts; ++p) {
    if (bytes_[p] == 0) continue;
    text += fmt::format(
        "{}{} {}",
        text.empty() ? "" : ", ",
        fit_part_name(static_cast<FitPart>(p)),
        format_bytes(bytes_[p]));
  }
  return text;
}

}  // namespace fettle::chain
