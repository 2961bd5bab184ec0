// SPDX-License-Identifier: Apache-2.0
// For work that is not planned, but whose need is known.
#pragma once

#include <cstdint>

#include "sweep/plan.h"

namespace fettle::sweep {

// Throws UserError naming the smallest sufficient --ram when `budget` is less
// than the program and `bytes`. Without a budget nothing is refused.
void require_ram(const Budget& budget, std::int64_t bytes);

}  // namespace fettle::sweep
