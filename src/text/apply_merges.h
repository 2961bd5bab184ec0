// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <vector>

#include "text/merge_table.h"

namespace fettle::text {

// Merges adjacent symbols of one word in place, always the pair of lowest rank
// and, among equals, the leftmost, until no pair has a merge. Short words are
// scanned, O(n²); longer ones go through a priority queue, O(n log n).
void apply_merges(const MergeTable& merges, std::vector<std::int32_t>& symbols);

}  // namespace fettle::text
