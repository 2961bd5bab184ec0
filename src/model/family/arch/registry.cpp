// SPDX-License-Identifier: Apache-2.0
#include <fmt/format.h>
#include <fmt/ranges.h>

#include <array>

#include "core/error.h"
#include "model/family/arch/families.h"
#include "model/family/weight_table.h"

namespace fettle::model {

std::span<const Family> families() {
  static const std::array<Family, 24> all = {
      afmoe_family(),
      deepseek_v2_family(),
      deepseek_v3_family(),
      dots1_family(),
      ernie4_5_moe_family(),
      gemma4_family(),
      glm4_moe_family(),
      glm4_moe_lite_family(),
      glm4v_moe_family(),
      gpt_oss_family(),
      granitemoe_family(),
      granitemoehybrid_family(),
      granitemoeshared_family(),
      lfm2_moe_family(),
      mellum_family(),
      minimax_m2_family(),
      mixtral_family(),
      nemotron_h_family(),
      olmoe_family(),
      qwen2_moe_family(),
      qwen3_5_moe_text_family(),
      qwen3_moe_family(),
      qwen3_next_family(),
      qwen3_vl_moe_family()};
  return all;
}

const Family& find_family(std::string_view model_type) {
  std::vector<std::string_view> known;
  for (const Family& family : families()) {
    if (family.model_type == model_type) return family;
    known.push_back(family.model_type);
  }
  throw UserError(
      "model",
      fmt::format("model_type '{}'", model_type),
      fmt::format(
          "no family that Fettle knows; it knows {}", fmt::join(known, ", ")));
}

}  // namespace fettle::model
