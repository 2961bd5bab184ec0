// SPDX-License-Identifier: Apache-2.0
// From data files to the sequences that sweeps pass.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>
#include <vector>

#include "model/layers/token_batch.h"
#include "sweep/evaluate.h"
#include "text/dataset.h"
#include "text/source_counts.h"

namespace fettle::sweep {

struct DataSource {
  const text::Tokenizer& tokenizer;
  text::SampleOptions options;
  // Tokens of a window; every line is cut by itself.
  std::int64_t seq_len = 512;
  // Leave out windows without a token that counts for the loss.
  bool scored_only = true;
};

struct EvalData {
  std::vector<EvalSet> sets;
  std::vector<text::SourceCounts> counts;  // of each file
};

// Every window of every line of each file, in order, one set a file. Throws
// UserError as JsonlReader does, and on a file that leaves nothing.
EvalData load_sets(
    const std::vector<text::WeightedFile>& files, const DataSource& source);

struct CalibrationData {
  std::vector<model::Sequence> sequences;
  std::vector<std::size_t> ends = {};  // of each file's, in `sequences`
  std::vector<text::SourceCounts> counts = {};  // of each file, before drawing
};

// About `tokens` tokens of windows drawn from the files in proportion to their
// weights, in an order that depends on `seed` alone; a file that has fewer
// gives all it has. tokens 0: everything.
CalibrationData load_calibration(
    const std::vector<text::WeightedFile>& files,
    const DataSource& source,
    std::int64_t tokens,
    std::uint64_t seed);

// A hash of ids, labels, and where sequences and documents begin.
std::string checksum(const std::vector<model::Sequence>& sequences);

std::int64_t count_tokens(const std::vector<model::Sequence>& sequences);
std::int64_t longest(const std::vector<model::Sequence>& sequences);

}  // namespace fettle::sweep
