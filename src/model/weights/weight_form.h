// SPDX-License-Identifier: Apache-2.0
// How a weight lies in a checkpoint that Fettle writes.
#pragma once

#include <ATen/ATen.h>

#include <cstdint>
#include <functional>
#include <optional>

#include "model/family/weight_table.h"
#include "model/weights/stored_form.h"

namespace fettle::model {

struct WeightForm {
  at::ScalarType dtype = at::kFloat;  // of a plain one
  std::int64_t packed_bytes = 0;      // of a packed one, else 0
  // Of one in blocks, as another tool stored it.
  std::optional<BlockGrid> blocks = {};
  // What a packed one takes in memory; 0: as much as in its file.
  std::int64_t loaded_bytes = 0;

  bool packed() const { return packed_bytes > 0; }
};
using WeightForms = std::function<WeightForm(const WeightId&)>;

}  // namespace fettle::model
