// SPDX-License-Identifier: Apache-2.0
// Looks at every weight of a model, for damage that headers don't show.
#pragma once

#include <cstdint>
#include <functional>
#include <string>
#include <vector>

#include "model/weights/model_reader.h"

namespace fettle::model {

struct WeightValues {
  struct NotFinite {
    std::string name;
    std::int64_t count = 0;  // of NaN and infinity
  };
  std::vector<NotFinite> not_finite;  // weights that hold such values
  std::vector<std::string> zero;      // weights that hold zeros alone
  std::int64_t weights = 0;           // looked at: those of a size above 0
};

// Reads all of it, a few megabytes at a time; `advance` is told the parameters
// of each weight. Throws UserError on packed weights that are damaged.
WeightValues scan_values(
    const ModelReader& reader,
    const std::function<void(std::int64_t)>& advance);

// Throws UserError where a weight holds NaN or infinity, or all hold zeros
// alone, as a file does whose space was reserved and never written.
void check_values(const WeightValues& values, const ModelReader& reader);

}  // namespace fettle::model
