// SPDX-License-Identifier: Apache-2.0
// Cuts calibration data into chunks that are swept one after another, batches
// whose gradient counts as one, and micro-batches; none straddles a larger one.
#pragma once

#include <cstdint>
#include <vector>

#include "analyze/score_method.h"
#include "model/layers/token_batch.h"
#include "ranks/shards.h"

namespace fettle::analyze {

struct CalibrationOptions {
  std::int64_t micro_batch_tokens = 0;
  std::int64_t batch_sequences = 0;  // 0: a chunk is one batch
  std::int64_t chunk_tokens = 0;     // 0: one chunk
  std::int64_t vocab_size = 0;
};

struct CalibrationChunk {
  std::vector<model::TokenBatch> micro_batches;
  std::vector<GradientBatch> batches;         // in their order
  std::vector<std::int64_t> shard_ends = {};  // in micro-batches
  std::int64_t tokens = 0;
};

// Chunk boundaries [first, last) of `data`: as many batches as chunk_tokens
// allows, at least one.
std::vector<std::size_t> chunk_starts(
    const std::vector<model::Sequence>& data,
    const CalibrationOptions& options);

// Sequences [first, last). Throws UserError on a token id that is no id.
CalibrationChunk make_chunk(
    const std::vector<model::Sequence>& data,
    std::size_t first,
    std::size_t last,
    const CalibrationOptions& options);

// Sequences [first, last) of the data.
struct SequenceRange {
  std::size_t first = 0;
  std::size_t last = 0;
};

// The same of a range that is divided among ranks: what this rank's shards
// have. No batch straddles two shards.
CalibrationChunk make_shards(
    const std::vector<model::Sequence>& data,
    const SequenceRange& range,
    const CalibrationOptions& options,
    const ranks::Team& team);

}  // namespace fettle::analyze
