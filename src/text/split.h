// SPDX-License-Identifier: Apache-2.0
// Cutting words at the matches of a pattern.
#pragma once

#include <string_view>
#include <vector>

#include "text/pre_tokenizer.h"
#include "text/regex.h"

namespace fettle::text {

// What becomes of a match, "-" in "a-b--c":
//   kRemoved     a b c            kMergedWithPrevious  a- b- - c
//   kIsolated    a - b - - c      kMergedWithNext      a -b - -c
//   kContiguous  a - b -- c
enum class SplitBehavior {
  kRemoved,
  kIsolated,
  kMergedWithPrevious,
  kMergedWithNext,
  kContiguous,
};

struct SplitOptions {
  SplitBehavior behavior = SplitBehavior::kIsolated;
  // Treat what lies between matches as the matches.
  bool invert = false;
};

class Split : public PreTokenizer {
 public:
  Split(Regex pattern, SplitOptions options);

  void apply(Words& words) const override;

 private:
  Regex pattern_;
  SplitOptions options_;
};

// Part of a word: a match or what lies between two matches.
struct SplitPart {
  Span span;
  bool is_match;
};

// Appends to `out` the words that `parts` of one word become. Parts may be
// empty; words are not.
void fold_parts(
    const std::vector<SplitPart>& parts,
    SplitBehavior behavior,
    std::vector<Span>& out);

}  // namespace fettle::text
