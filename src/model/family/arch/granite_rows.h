// SPDX-License-Identifier: Apache-2.0
// Rows that the Granite families have alike.
#pragma once

#include "model/family/arch/stacked_rows.h"

namespace fettle::model {

inline constexpr WeightRow kGraniteRouterRows[] = {
    {.role = Role::kRouter,
     .name = "model.layers.{l}.block_sparse_moe.router.layer.weight",
     .alias = "model.layers.{l}.block_sparse_moe.router.weight"},
    own_row(
        Role::kRouterBias,
        "model.layers.{l}.block_sparse_moe.router.logit_bias"),
};

inline constexpr WeightRow kGraniteExpertRows[] = {
    {.role = Role::kExpertGate,
     .name = "model.layers.{l}.block_sparse_moe.experts.{e}.gate_proj.weight",
     .fused = "model.layers.{l}.block_sparse_moe.input_linear.weight",
     .fused_alias = "model.layers.{l}.block_sparse_moe.experts.gate_up_proj",
     .stacked_only = true},
    {.role = Role::kExpertUp,
     .name = "model.layers.{l}.block_sparse_moe.experts.{e}.up_proj.weight",
     .fused = "model.layers.{l}.block_sparse_moe.input_linear.weight",
     .fused_alias = "model.layers.{l}.block_sparse_moe.experts.gate_up_proj",
     .stacked_only = true},
    {.role = Role::kExpertDown,
     .name = "model.layers.{l}.block_sparse_moe.experts.{e}.down_proj.weight",
     .fused = "model.layers.{l}.block_sparse_moe.output_linear.weight",
     .fused_alias = "model.layers.{l}.block_sparse_moe.experts.down_proj",
     .stacked_only = true},
    own_row(
        Role::kExpertConstant,
        "model.layers.{l}.block_sparse_moe.experts.constant"),
};

inline constexpr WeightRow kGraniteSharedRows[] = {
    stacked_row(
        Role::kSharedGate,
        "model.layers.{l}.shared_mlp.gate_proj.weight",
        "model.layers.{l}.shared_mlp.input_linear.weight"),
    stacked_row(
        Role::kSharedUp,
        "model.layers.{l}.shared_mlp.up_proj.weight",
        "model.layers.{l}.shared_mlp.input_linear.weight"),
    {Role::kSharedDown, "model.layers.{l}.shared_mlp.output_linear.weight"},
};

}  // namespace fettle::model
