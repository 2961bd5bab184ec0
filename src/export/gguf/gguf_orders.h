// SPDX-License-Identifier: Apache-2.0
// Weights that lie in a GGUF file in another order than in checkpoints, or as
// other values. Source: llama.cpp, conversion/qwen.py and conversion/llama.py.
#pragma once

#include <ATen/ATen.h>

#include <cstdint>
#include <string>
#include <vector>

#include "export/gguf/gguf_metadata.h"
#include "model/family/weight_table.h"

namespace fettle::exporter {

// What a tensor of the file holds of a weight.
struct GgufOrder {
  // For each row and column of the file, that of the weight; undefined: as they
  // are. A vector is one row.
  at::Tensor rows = {};     // [n] int64
  at::Tensor columns = {};  // [m] int64
  // Columns that stay neighbours where they move; 0: they don't move.
  std::int64_t run = 0;
  double added = 0.0;      // to each value
  bool minus_exp = false;  // -e^v for each value v
};

// A tensor that a weight goes to.
struct GgufPlace {
  std::string name;
  GgufOrder order = {};
};

// Several for a weight that llama.cpp has in parts.
std::vector<GgufPlace> gguf_places(
    const model::ModelConfig& config,
    const GgufFamily& family,
    const model::WeightId& id);

// fp32 [rows, cols], of values [rows, cols] of a weight.
at::Tensor ordered(const GgufOrder& order, const at::Tensor& values);

}  // namespace fettle::exporter
