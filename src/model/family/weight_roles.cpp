// SPDX-License-Identifier: Apache-2.0
#include "model/family/weight_roles.h"

#include <algorithm>
#include <array>

#include "core/error.h"
#include "model/family/role_rows.h"

namespace fettle::model {

using namespace role_rows;

namespace {

bool always(Model, Layer) { return true; }
bool is_sparse(Model, Layer layer) { return layer.sparse; }
bool has_dense(Model, Layer layer) { return layer.has_dense(); }
bool is_side_by_side(Model, Layer layer) {
  return layer.has_dense_beside_experts();
}
bool has_mixer(Model, Layer layer) { return layer.has_mixer(); }
bool has_mlp(Model, Layer layer) { return layer.has_mlp(); }
bool has_mixer_out_norm(Model config, Layer layer) {
  return config.block.out_norms && layer.has_mixer();
}
bool has_mlp_out_norm(Model config, Layer layer) {
  return config.block.out_norms && layer.has_mlp();
}
bool has_shared(Model, Layer layer) {
  return layer.sparse && layer.shared_width > 0;
}

// Whether the model's MLPs have gates.
bool is_gated(Model config) { return inputs_of(config.activation) > 1; }
bool has_expert_gate(Model config, Layer layer) {
  return is_sparse(config, layer) && is_gated(config);
}
bool has_shared_gate(Model config, Layer layer) {
  return has_shared(config, layer) && is_gated(config);
}
bool has_dense_gate(Model config, Layer layer) {
  return has_dense(config, layer) && is_gated(config);
}

bool has_expert_bias(Model config, Layer layer) {
  return layer.sparse && config.expert_bias;
}

Shape vocabulary(Model config, Layer, Width) {
  return {config.vocab_size, config.hidden_size};
}

Shape one_per_expert(Model, Layer layer, Width) {
  return {layer.num_experts()};
}
Shape one_per_neuron(Model, Layer, Width w) { return {w}; }
Shape row_per_expert(Model config, Layer layer, Width) {
  return {layer.num_experts(), config.hidden_size};
}

Shape into(Model config, Width width) { return {width, config.hidden_size}; }
Shape out_of(Model config, Width width) { return {config.hidden_size, width}; }
Shape expert_in(Model config, Layer, Width w) { return into(config, w); }
Shape expert_out(Model config, Layer, Width w) { return out_of(config, w); }
Shape shared_in(Model config, Layer layer, Width) {
  return into(config, layer.shared_width);
}
Shape shared_out(Model config, Layer layer, Width) {
  return out_of(config, layer.shared_width);
}
Shape dense_in(Model config, Layer layer, Width) {
  return into(config, layer.dense_width);
}
Shape dense_out(Model config, Layer layer, Width) {
  return out_of(config, layer.dense_width);
}

using enum Role;
using enum RoleScope;
using enum RoleKind;

constexpr auto kFirstRoles = std::to_array<RoleInfo>({
    {kEmbedTokens,
     "embed_tokens",
     kModel,
     kMatrix,
     kEmbedTokens,
     always,
     vocabulary},
    {kFinalNorm, "final_norm", kModel, kVector, kFinalNorm, always, hidden},
    {kLmHead,
     "lm_head",
     kModel,
     kMatrix,
     kLmHead,
     [](Model config, Layer) { return !config.tie_word_embeddings; },
     vocabulary},
    {kInputNorm, "input_norm", kLayer, kVector, kInputNorm, has_mixer, hidden},
    {kAttentionOutNorm,
     "attention_out_norm",
     kLayer,
     kVector,
     kAttentionOutNorm,
     has_mixer_out_norm,
     hidden},
    {kPostAttentionNorm,
     "post_attention_norm",
     kLayer,
     kVector,
     kPostAttentionNorm,
     has_mlp,
     hidden},
    {kMlpOutNorm,
     "mlp_out_norm",
     kLayer,
     kVector,
     kMlpOutNorm,
     has_mlp_out_norm,
     hidden},
    {kDenseOutNorm,
     "dense_out_norm",
     kLayer,
     kVector,
     kDenseOutNorm,
     is_side_by_side,
     hidden},
    {kExpertsNorm,
     "experts_norm",
     kLayer,
     kVector,
     kExpertsNorm,
     is_side_by_side,
     hidden},
    {kExpertsOutNorm,
     "experts_out_norm",
     kLayer,
     kVector,
     kExpertsOutNorm,
     is_side_by_side,
     hidden},
    {kLayerScalar,
     "layer_scalar",
     kLayer,
     kVector,
     kLayerScalar,
     [](Model config, Layer) { return config.block.layer_scalar; },
     [](Model, Layer, Width) { return Shape{1}; }},
});

// From the router on: a layer's MLP.
constexpr auto kMlpRoles = std::to_array<RoleInfo>({
    {kRouter, "router", kRows, kDecision, kRouter, is_sparse, row_per_expert},
    {kRouterCorrection,
     "router_correction",
     kRows,
     kDecision,
     kRouterCorrection,
     [](Model config, Layer layer) {
       return layer.sparse && config.router.correction_bias;
     },
     one_per_expert},
    {kRouterBias,
     "router_bias",
     kRows,
     kDecision,
     kRouterBias,
     [](Model, Layer layer) { return layer.sparse && layer.router_bias; },
     one_per_expert},
    {kRouterNorm,
     "router_norm",
     kLayer,
     kDecision,
     kRouterNorm,
     [](Model config, Layer layer) {
       return layer.sparse && config.router.own_norm;
     },
     hidden},
    {kExpertScale,
     "expert_scale",
     kRows,
     kDecision,
     kExpertScale,
     [](Model config, Layer layer) {
       return layer.sparse && config.router.expert_scales;
     },
     one_per_expert},
    {kExpertGate,
     "expert_gate",
     kExpert,
     kMatrix,
     kExpertGate,
     has_expert_gate,
     expert_in},
    {kExpertUp,
     "expert_up",
     kExpert,
     kMatrix,
     kExpertGate,
     is_sparse,
     expert_in},
    {kExpertDown,
     "expert_down",
     kExpert,
     kMatrix,
     kExpertDown,
     is_sparse,
     expert_out},
    {kExpertGateBias,
     "expert_gate_bias",
     kExpert,
     kVector,
     kExpertGateBias,
     has_expert_bias,
     one_per_neuron},
    {kExpertUpBias,
     "expert_up_bias",
     kExpert,
     kVector,
     kExpertUpBias,
     has_expert_bias,
     one_per_neuron},
    {kExpertConstant,
     "expert_constant",
     kRows,
     kVector,
     kExpertConstant,
     [](Model, Layer layer) { return layer.sparse && layer.has_constants; },
     row_per_expert},
    {kSharedGate,
     "shared_gate",
     kLayer,
     kMatrix,
     kSharedGate,
     has_shared_gate,
     shared_in},
    {kSharedUp,
     "shared_up",
     kLayer,
     kMatrix,
     kSharedGate,
     has_shared,
     shared_in},
    {kSharedDown,
     "shared_down",
     kLayer,
     kMatrix,
     kSharedDown,
     has_shared,
     shared_out},
    {kSharedRouter,
     "shared_router",
     kLayer,
     kVector,
     kSharedRouter,
     [](Model config, Layer layer) {
       return has_shared(config, layer) &&
              config.shared_expert == SharedExpert::kSigmoidGated;
     },
     [](Model config, Layer, Width) { return Shape{1, config.hidden_size}; }},
    {kDenseGate,
     "dense_gate",
     kLayer,
     kMatrix,
     kDenseGate,
     has_dense_gate,
     dense_in},
    {kDenseUp, "dense_up", kLayer, kMatrix, kDenseGate, has_dense, dense_in},
    {kDenseDown,
     "dense_down",
     kLayer,
     kMatrix,
     kDenseDown,
     has_dense,
     dense_out},
});

// A row for each role, in their order.
std::vector<RoleInfo> joined() {
  std::vector<RoleInfo> all;
  for (const std::span<const RoleInfo> part :
       {std::span<const RoleInfo>(kFirstRoles),
        attention_role_rows(),
        mixer_role_rows(),
        std::span<const RoleInfo>(kMlpRoles)}) {
    all.insert(all.end(), part.begin(), part.end());
  }
  for (std::size_t i = 0; i < all.size(); ++i) {
    FETTLE_ASSERT(static_cast<std::size_t>(all[i].role) == i);
  }
  FETTLE_ASSERT(all.size() == static_cast<std::size_t>(kDenseDown) + 1);
  return all;
}

}  // namespace

const RoleInfo& role_info(Role role) {
  const auto place = static_cast<std::size_t>(role);
  FETTLE_ASSERT(place < role_infos().size());
  return role_infos()[place];
}

std::span<const RoleInfo> role_infos() {
  static const std::vector<RoleInfo> all = joined();
  return all;
}

std::string_view role_name(Role role) { return role_info(role).name; }

}  // namespace fettle::model
