// SPDX-License-Identifier: Apache-2.0
// Rows of Mamba-2 mixers by Granite's names.
#pragma once

#include "model/family/weight_table.h"

namespace fettle::model {

inline constexpr WeightRow kMambaRows[] = {
    {Role::kMambaIn, "model.layers.{l}.mamba.in_proj.weight"},
    {Role::kMambaInBias, "model.layers.{l}.mamba.in_proj.bias"},
    {.role = Role::kConvWeight,
     .name = "model.layers.{l}.mamba.conv1d.weight",
     .by_channel = true},
    {Role::kConvBias, "model.layers.{l}.mamba.conv1d.bias"},
    {Role::kMambaLogRate, "model.layers.{l}.mamba.A_log"},
    {Role::kMambaStepBias, "model.layers.{l}.mamba.dt_bias"},
    {Role::kMambaSkip, "model.layers.{l}.mamba.D"},
    {Role::kMambaNorm, "model.layers.{l}.mamba.norm.weight"},
    {Role::kMambaOut, "model.layers.{l}.mamba.out_proj.weight"},
    {Role::kMambaOutBias, "model.layers.{l}.mamba.out_proj.bias"},
};

}  // namespace fettle::model
