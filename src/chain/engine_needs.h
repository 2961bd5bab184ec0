// SPDX-License-Identifier: Apache-2.0
// What a program's formats ask of a plan, from what export knows of them.
#pragma once

#include <string>
#include <vector>

#include "chain/engine.h"
#include "chain/search.h"

namespace fettle::chain {

struct EngineNeeds {
  Rules rules = {};
  std::int64_t group = 0;  // weights that share a scale; 0: as quant chooses
  std::vector<std::string> schemes = {};  // of experts, by falling bits
  std::vector<std::string> parts = {};    // that have a choice, as quant names
};

// Of a model of `config`. `bits_min`: the least scheme to look at; empty: any
// that costs the program no wider blocks. Throws UserError where its formats
// have no place for such a scheme.
EngineNeeds needs_of(
    const Engine& engine,
    const model::ModelConfig& config,
    const std::string& bits_min);

}  // namespace fettle::chain
