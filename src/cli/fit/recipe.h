// SPDX-License-Identifier: Apache-2.0
// The chain from a model to what a plan makes of it, as a recipe.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "chain/engine.h"
#include "cli/fit/folder.h"

namespace fettle::cli {

struct FitChain {
  const FitFolder& folder;  // with trim_plan.json and quant_plan.json
  const chain::Engine& engine;
  const std::vector<std::string>& held;
  std::uint64_t seed = 1;
  std::int64_t group = 0;       // of scales; 0: as quant chooses
  bool tunes = false;           // with the model as it is as teacher
  bool rounds = true;           // whether anything is quantized
  std::int64_t tune_steps = 0;  // 0: as tune chooses
};

std::string fit_recipe(const FitChain& chain);

}  // namespace fettle::cli
