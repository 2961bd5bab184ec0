// SPDX-License-Identifier: Apache-2.0
// Rows of weights of which files hold stacks: all experts of a layer in one
// tensor, or gate and up of an MLP.
#pragma once

#include "model/family/weight_table.h"

namespace fettle::model {

// A weight that files hold in a stack alone; `name` is Fettle's own.
constexpr WeightRow stacked_row(
    Role role,
    std::string_view name,
    std::string_view stack,
    StackOrder order = StackOrder::kGateFirst) {
  return {
      .role = role,
      .name = name,
      .fused = stack,
      .order = order,
      .stacked_only = true};
}

// Such experts, by Qwen's names.
template <StackOrder kOrder>
inline constexpr WeightRow kStackedExpertRows[] = {
    stacked_row(
        Role::kExpertGate,
        "model.layers.{l}.mlp.experts.{e}.gate_proj.weight",
        "model.layers.{l}.mlp.experts.gate_up_proj",
        kOrder),
    stacked_row(
        Role::kExpertUp,
        "model.layers.{l}.mlp.experts.{e}.up_proj.weight",
        "model.layers.{l}.mlp.experts.gate_up_proj",
        kOrder),
    stacked_row(
        Role::kExpertDown,
        "model.layers.{l}.mlp.experts.{e}.down_proj.weight",
        "model.layers.{l}.mlp.experts.down_proj",
        kOrder),
};

}  // namespace fettle::model
