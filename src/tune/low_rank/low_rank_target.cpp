// SPDX-License-Identifier: Apache-2.0
#include "tune/low_rank/low_rank_target.h"

#include <algorithm>

#include "model/weights/weight_slot.h"
#include "tune/whole/weight_gradients.h"

namespace fettle::tune {

namespace {

using model::Role;

LowRankTarget expert_target(
    const model::ModelConfig& config, std::int64_t layer, Role role) {
  const std::int64_t rows_per_neuron = role == Role::kExpertGate ? 2 : 1;
  LowRankTarget target{layer, role, {0}, config.hidden_size};
  for (const std::int64_t width : config.layers[layer].expert_widths) {
    target.offsets.push_back(target.rows() + rows_per_neuron * width);
  }
  return target;
}

}  // namespace

std::vector<Role> low_rank_roles(const LowRankKinds& kinds) {
  std::vector<Role> roles;
  const auto add = [&](bool wanted, const std::vector<Role>& more) {
    if (wanted) roles.insert(roles.end(), more.begin(), more.end());
  };
  add(kinds.experts, model::kExpertRoles.all());
  add(kinds.attention, model::attention_roles());
  add(kinds.shared, model::kSharedRoles.all());
  add(kinds.dense, model::kDenseRoles.all());
  return roles;
}

bool LowRankTarget::upright() const { return !model::is_down_role(role); }

std::string LowRankTarget::name() const {
  if (role == Role::kExpertGate) return "expert_gate_up";
  return std::string(model::role_name(role));
}

bool LowRankTarget::covers(const model::WeightId& id) const {
  if (id.layer != layer) return false;
  return id.role == role ||
         (role == Role::kExpertGate && id.role == Role::kExpertUp);
}

std::vector<LowRankTarget> low_rank_targets(
    const LowRankKinds& kinds,
    const model::ModelConfig& config,
    std::int64_t layer) {
  std::vector<LowRankTarget> targets;
  if (kinds.experts && config.layers[layer].total_width() > 0) {
    const bool gated = model::inputs_of(config.activation) > 1;
    const Role inner = gated ? Role::kExpertGate : Role::kExpertUp;
    for (const Role role : {inner, Role::kExpertDown}) {
      targets.push_back(expert_target(config, layer, role));
    }
  }
  const std::vector<Role> roles =
      low_rank_roles({false, kinds.attention, kinds.shared, kinds.dense});
  for (const model::WeightId& id : model::layer_weights(config, layer)) {
    if (std::ranges::find(roles, id.role) == roles.end()) continue;
    auto shape = model::weight_shape(config, id);
    if (model::is_down_role(id.role)) std::swap(shape[0], shape[1]);
    targets.push_back({layer, id.role, {0, shape[0]}, shape[1]});
  }
  return targets;
}

at::Tensor own_target(const LowRankTarget& target, model::LayerWeights& into) {
  at::Tensor& slot = model::weight_slot(into, target.role);
  slot = slot.clone();
  if (target.of_experts()) return slot;
  return packed_view(into, {target.role, target.layer});
}

}  // namespace fettle::tune
