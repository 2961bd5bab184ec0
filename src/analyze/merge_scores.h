// SPDX-License-Identifier: Apache-2.0
// Scores of several runs as if one run had seen all their data: the sums are
// reduced, and the scores made of them anew. Of each run its ranking of the
// neurons is kept, so that they can be compared.
#pragma once

#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <functional>
#include <string>
#include <vector>

#include "artifact/score_file.h"

namespace fettle::analyze {

struct MergeInput {
  std::string name;  // in messages: the folder
  artifact::ScoreFile scores;
};

// The scores of the data of inputs 0 .. count-1, of which two are held at once;
// what was merged before may be merged again. Throws UserError, naming the
// difference, unless all are of the same model, version, scores and options;
// when a score can't be merged; or when two hold the same data.
artifact::ScoreFile merge_scores(
    std::size_t count, const std::function<MergeInput(std::size_t)>& input);

// Bytes that a merge of the scores in these folders takes.
std::int64_t merge_bytes(const std::vector<std::filesystem::path>& folders);

}  // namespace fettle::analyze
