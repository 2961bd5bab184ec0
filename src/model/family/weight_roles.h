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
#include "model/family/role.h"

namespace fettle::model {

// How often a model has a weight of a role.
enum class RoleScope {
  kModel,   // once
  kLayer,   // once in a layer
  kExpert,  // once for each expert of a layer
  kRows,    // once in a layer, with a row for each expert: [E, ..]
};

enum class RoleKind {
  kMatrix,  // multiplied by activations, or looked up: may be packed
  kVector,  // norms, biases, constants: never packed
  // Decides on experts, or how fast a state decays: never packed, float32 in
  // computation.
  kDecision,
};

struct RoleInfo {
  Role role;
  std::string_view name;  // in messages, plans and reports: "expert_down"
  RoleScope scope;
  RoleKind kind;
  // The role whose weight has the same input; itself, if none. Up has that of
  // gate, also where there is no gate.
  Role site;
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
bool is_attention_role(Role role);  // one of attention_roles()
bool is_down_role(Role role);       // down_proj of any MLP
bool is_up_role(Role role);         // up_proj of any MLP
bool is_mlp_role(Role role);        // gate, up or down of any MLP

// The projections of the attention, whichever a family has, and of what layers
// have in its place. Those that make a token's few gates are none of them.
std::vector<Role> attention_roles();

}  // namespace fettle::model
