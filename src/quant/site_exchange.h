// SPDX-License-Identifier: Apache-2.0
// What ranks that quantize a layer together send each other.
#pragma once

#include <map>
#include <string>
#include <vector>

#include "quant/layer_quantizer.h"
#include "ranks/group.h"

namespace fettle::quant {

// Has rank 0 hold what every rank made of its sites. `results`: by site, empty
// where another rank has it.
void gather_at_rank_0(
    ranks::Group& group, std::vector<std::vector<QuantizedWeight>>& results);

// Stored tensors by name: has every rank hold rank 0's.
using StoredTensors = std::map<std::string, at::Tensor>;
void share(ranks::Group& group, StoredTensors& tensors);

}  // namespace fettle::quant
