// SPDX-License-Identifier: Apache-2.0
// Scores of several runs as if one run had seen all their data: the sums are
// reduced, and the scores made of them anew. Of each run its ranking of the
// neurons is kept, so that they can be compared.
#pragma once

#include <string>
#include <vector>

#include "artifact/score_file.h"

namespace fettle::analyze {

struct MergeInput {
  std::string name;  // in messages: the folder
  artifact::ScoreFile scores;
};

// The scores of all inputs' data; what was merged before may be merged again.
// Throws UserError, naming the difference, unless all are of the same model,
// version, scores and options; when a score can't be merged; or when two hold
// the same data.
artifact::ScoreFile merge_scores(const std::vector<MergeInput>& inputs);

}  // namespace fettle::analyze
