// SPDX-License-Identifier: Apache-2.0
// "Did you mean": the known name nearest to a misspelt one.
#pragma once

#include <string>
#include <string_view>
#include <vector>

namespace fettle::cli {

// The name with the fewest insertions, deletions and substitutions to `word`,
// or empty when even that takes more than three or half the word.
std::string nearest(
    std::string_view word, const std::vector<std::string>& names);

}  // namespace fettle::cli
