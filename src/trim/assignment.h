// SPDX-License-Identifier: Apache-2.0
// The linear assignment problem.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

namespace fettle::trim {

// cost: [n, n] row-major. The permutation p that makes sum_i cost(i, p[i]) the
// least; of several the same one each time. O(n^3) by shortest augmenting
// paths. Source: Jonker & Volgenant, Computing 38, 1987.
std::vector<std::int64_t> assign(std::span<const double> cost, std::int64_t n);

}  // namespace fettle::trim
