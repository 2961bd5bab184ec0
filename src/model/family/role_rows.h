// SPDX-License-Identifier: Apache-2.0
// The table of roles in its parts, and what they have in common.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "model/family/weight_roles.h"

namespace fettle::model {

// From q_proj to kv_b_proj: layers with attention.
std::span<const RoleInfo> attention_role_rows();
// From conv_weight to delta_out: layers with another mixer.
std::span<const RoleInfo> mixer_role_rows();

namespace role_rows {

// Of the functions of a row.
using Shape = std::vector<std::int64_t>;
using Model = const ModelConfig&;
using Layer = const LayerConfig&;
using Width = std::int64_t;

inline Shape hidden(Model config, Layer, Width) { return {config.hidden_size}; }

}  // namespace role_rows

}  // namespace fettle::model
