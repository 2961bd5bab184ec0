// SPDX-License-Identifier: Apache-2.0
// The families that the registry lists, one source file each.
#pragma once

#include "model/family/weight_table.h"

namespace fettle::model {

Family deepseek_v2_family();
Family mixtral_family();
Family olmoe_family();
Family qwen2_moe_family();
Family qwen3_moe_family();

}  // namespace fettle::model
