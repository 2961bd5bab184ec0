// SPDX-License-Identifier: Apache-2.0
// The families that the registry lists, one source file each.
#pragma once

#include "model/family/weight_table.h"

namespace fettle::model {

Family afmoe_family();
Family deepseek_v2_family();
Family deepseek_v3_family();
Family dots1_family();
Family ernie4_5_moe_family();
Family gemma4_family();
Family glm4_moe_family();
Family glm4_moe_lite_family();
Family glm4v_moe_family();
Family granitemoe_family();
Family granitemoehybrid_family();
Family granitemoeshared_family();
Family gpt_oss_family();
Family lfm2_moe_family();
Family mellum_family();
Family minimax_m2_family();
Family mixtral_family();
Family nemotron_h_family();
Family olmoe_family();
Family qwen2_moe_family();
Family qwen3_5_moe_text_family();
Family qwen3_moe_family();
Family qwen3_vl_moe_family();
Family qwen3_next_family();

}  // namespace fettle::model
