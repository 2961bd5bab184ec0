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
Family granitemoe_family();
Family granitemoeshared_family();
Family gpt_oss_family();
Family mellum_family();
Family minimax_m2_family();
Family mixtral_family();
Family olmoe_family();
Family qwen2_moe_family();
Family qwen3_moe_family();

}  // namespace fettle::model
