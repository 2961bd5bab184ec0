// SPDX-License-Identifier: Apache-2.0
// Which tensors a GGUF file of a model has: names, what each is made of, and
// the type that holds it.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "export/export.h"
#include "export/gguf/gguf_blocks.h"
#include "export/gguf/gguf_file.h"
#include "export/gguf/gguf_orders.h"
#include "export/source_forms.h"

namespace fettle::exporter {

struct PlannedTensor {
  std::string name = {};
  // One weight, or the experts of a layer, which lie one behind the other.
  std::vector<model::WeightId> parts = {};
  BlockType type = BlockType::kF32;
  bool nearest = false;  // `type` does not hold it exactly
  GgufOrder order = {};  // of each part
  // Of a tensor that is no weight, [n] fp32; it has no parts.
  at::Tensor values = {};
};

struct GgufPlan {
  model::ModelConfig config;  // padded
  std::vector<PlannedTensor> tensors;
};

// Chooses the exact type of fewest bits for each tensor, and of widths to pad
// experts to the one of fewest bytes. Throws UserError naming a weight that no
// type holds, unless the nearest is wanted.
GgufPlan plan_gguf(const SourceForms& source, const ExportOptions& options);

// Rows and columns of one part; a vector is one row.
std::pair<std::int64_t, std::int64_t> part_shape(
    const model::ModelConfig& config, const model::WeightId& id);

// Rows of the file that each part has.
std::int64_t part_rows(
    const model::ModelConfig& config, const PlannedTensor& tensor);

// As the file declares it.
GgufTensor declared(
    const model::ModelConfig& config, const PlannedTensor& tensor);

}  // namespace fettle::exporter
