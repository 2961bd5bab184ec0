// SPDX-License-Identifier: Apache-2.0
// Joins parts of a family's table.
#pragma once

#include <array>
#include <cstddef>

#include "model/family/weight_table.h"

namespace fettle::model {

// All rows of the parts, in their order, which is that of a layer's weights.
template <std::size_t... kSizes>
constexpr auto joined(const WeightRow (&... parts)[kSizes]) {
  std::array<WeightRow, (kSizes + ...)> rows{};
  std::size_t next = 0;
  const auto add = [&](const auto& part) {
    for (const WeightRow& row : part) rows[next++] = row;
  };
  (add(parts), ...);
  return rows;
}

}  // namespace fettle::model
