// SPDX-License-Identifier: Apache-2.0
// Which characters match each other where case is ignored: those of one full
// case folding (Unicode, CaseFolding.txt, C and F).
#pragma once

#include <functional>
#include <string>
#include <string_view>
#include <vector>

namespace fettle::text {

// All characters that match `c`, itself among them, ascending.
std::vector<char32_t> case_variants(char32_t c);

// What `c` folds to: "s" for S, "ss" for ß.
std::u32string case_fold(char32_t c);

// Whether a folding of several characters ("ss") ends `folded`.
bool ends_in_long_fold(std::u32string_view folded);

struct FoldedSet {
  std::vector<char32_t> missing;  // match one of the set, but aren't in it
  bool has_long_fold = false;     // one of the set folds to several characters
};

// The set is given by whether a character is in it.
FoldedSet fold_set(const std::function<bool(char32_t)>& contains);

}  // namespace fettle::text
