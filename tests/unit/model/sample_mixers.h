// SPDX-License-Identifier: Apache-2.0
// What samples of families have whose layers don't all have attention.
#pragma once

#include "core/json.h"

namespace fettle::model::testing {

inline Json lfm2_changes() {
  return {
      {"moe_intermediate_size", 6},
      {"intermediate_size", 10},
      {"num_experts", 4},
      {"num_dense_layers", 1},
      {"layer_types", {"conv", "full_attention"}}};
}

inline Json hybrid_changes() {
  return {
      {"moe_intermediate_size", 6},
      {"intermediate_size", 10},
      {"num_experts", 4},
      {"shared_expert_intermediate_size", 5},
      {"head_dim", 8},
      {"linear_num_key_heads", 2},
      {"linear_num_value_heads", 4},
      {"linear_key_head_dim", 3},
      {"linear_value_head_dim", 2},
      {"layer_types", {"linear_attention", "full_attention"}}};
}

inline Json mamba_changes() {
  return {
      {"intermediate_size", 6},
      {"num_local_experts", 4},
      {"shared_intermediate_size", 5},
      {"mamba_n_heads", 4},
      {"mamba_d_head", 4},
      {"mamba_n_groups", 2},
      {"mamba_d_state", 3},
      {"layer_types", {"linear_attention", "full_attention"}}};
}

inline Json nemotron_changes() {
  return {
      {"moe_intermediate_size", 6},
      {"moe_shared_expert_intermediate_size", 5},
      {"n_routed_experts", 4},
      {"head_dim", 4},
      {"mamba_num_heads", 4},
      {"mamba_head_dim", 4},
      {"n_groups", 2},
      {"ssm_state_size", 3},
      {"layers_block_type", {"linear_attention", "moe"}}};
}

}  // namespace fettle::model::testing
