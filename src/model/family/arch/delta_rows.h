// SPDX-License-Identifier: Apache-2.0
// Rows of layers with the gated delta rule.
#pragma once

#include "model/family/weight_table.h"

namespace fettle::model {

// The gated delta rule behind its input projections.
inline constexpr WeightRow kDeltaRows[] = {
    {.role = Role::kConvWeight,
     .name = "model.layers.{l}.linear_attn.conv1d.weight",
     .by_channel = true},
    {Role::kDeltaLogRate, "model.layers.{l}.linear_attn.A_log"},
    {Role::kDeltaDecayBias, "model.layers.{l}.linear_attn.dt_bias"},
    {Role::kDeltaNorm, "model.layers.{l}.linear_attn.norm.weight"},
    {Role::kDeltaOut, "model.layers.{l}.linear_attn.out_proj.weight"},
};

}  // namespace fettle::model
