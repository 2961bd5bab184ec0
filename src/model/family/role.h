// SPDX-License-Identifier: Apache-2.0
// The names of the roles; what is known of each is in weight_roles.h.
#pragma once

#include <vector>

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
  // Of mixers with a convolution
  kConvWeight,
  kConvBias,
  // Short convolution
  kShortConvIn,
  kShortConvInBias,
  kShortConvOut,
  kShortConvOutBias,
  // Gated delta rule: four input projections, or two whose rows are grouped
  kDeltaQkv,
  kDeltaGate,
  kDeltaBeta,
  kDeltaDecay,
  kDeltaQkvGate,
  kDeltaBetaDecay,
  kDeltaLogRate,
  kDeltaDecayBias,
  kDeltaNorm,
  kDeltaOut,
  // Mamba-2
  kMambaIn,
  kMambaInBias,
  kMambaLogRate,
  kMambaStepBias,
  kMambaSkip,
  kMambaNorm,
  kMambaOut,
  kMambaOutBias,
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

// The matrices of an MLP: a layer's experts, its shared expert, or what a dense
// layer has. Some models' have no gate.
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
