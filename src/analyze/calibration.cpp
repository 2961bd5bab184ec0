// SPDX-License-Identifier: Apache-2.0
#include "analyze/calibration.h"

#include <algorithm>
#include <iterator>
#include <span>

#include "sweep/micro_batches.h"

namespace fettle::analyze {

std::vector<std::size_t> chunk_starts(
    const std::vector<model::Sequence>& data,
    const CalibrationOptions& options) {
  const auto batch = static_cast<std::size_t>(
      std::max<std::int64_t>(options.batch_sequences, 1));
  std::vector<std::size_t> starts{0};
  std::int64_t tokens = 0;
  for (std::size_t first = 0; first < data.size(); first += batch) {
    const std::size_t last = std::min(first + batch, data.size());
    std::int64_t size = 0;
    for (std::size_t s = first; s < last; ++s) {
      size += static_cast<std::int64_t>(data[s].ids.size());
    }
    if (options.chunk_tokens > 0 && first > starts.back() &&
        tokens + size > options.chunk_tokens) {
      starts.push_back(first);
      tokens = 0;
    }
    tokens += size;
  }
  starts.push_back(data.size());
  return starts;
}

CalibrationChunk make_chunk(
    const std::vector<model::Sequence>& data,
    std::size_t first,
    std::size_t last,
    const CalibrationOptions& options) {
  const std::size_t batch =
      options.batch_sequences > 0
          ? static_cast<std::size_t>(options.batch_sequences)
          : last - first;
  CalibrationChunk chunk;
  for (std::size_t begin = first; begin < last; begin += batch) {
    const std::size_t end = std::min(begin + batch, last);
    auto parts = sweep::micro_batches(
        std::span(data).subspan(begin, end - begin),
        options.micro_batch_tokens,
        options.vocab_size);
    chunk.batches.push_back(
        {static_cast<std::int64_t>(parts.size()), sweep::loss_tokens(parts)});
    for (const model::TokenBatch& part : parts) {
      chunk.tokens += part.tokens();
    }
    std::ranges::move(parts, std::back_inserter(chunk.micro_batches));
  }
  return chunk;
}

namespace {

// Where the shards of a range begin and end: [shards + 1].
std::vector<std::size_t> shard_starts(
    const std::vector<model::Sequence>& data,
    const SequenceRange& range,
    std::size_t batch,
    std::int64_t shards) {
  std::vector<std::int64_t> tokens;  // of each batch
  for (std::size_t s = range.first; s < range.last; ++s) {
    if ((s - range.first) % batch == 0) tokens.push_back(0);
    tokens.back() += static_cast<std::int64_t>(data[s].ids.size());
  }
  std::vector<std::size_t> starts;
  for (const std::size_t run : ranks::even_runs(tokens, shards)) {
    starts.push_back(std::min(range.first + run * batch, range.last));
  }
  return starts;
}

}  // namespace

CalibrationChunk make_shards(
    const std::vector<model::Sequence>& data,
    const SequenceRange& range,
    const CalibrationOptions& options,
    const ranks::Team& team) {
  if (!team.divides()) {
    return make_chunk(data, range.first, range.last, options);
  }
  const auto batch = static_cast<std::size_t>(
      std::max<std::int64_t>(options.batch_sequences, 1));
  const auto starts = shard_starts(data, range, batch, team.shards);
  const ranks::Shards own = team.own();
  CalibrationChunk chunk;
  for (std::int64_t s = own.first; s < own.first + own.count; ++s) {
    CalibrationChunk part = make_chunk(data, starts[s], starts[s + 1], options);
    std::ranges::move(
        part.micro_batches, std::back_inserter(chunk.micro_batches));
    std::ranges::move(part.batches, std::back_inserter(chunk.batches));
    chunk.tokens += part.tokens;
    chunk.shard_ends.push_back(
        static_cast<std::int64_t>(chunk.micro_batches.size()));
  }
  return chunk;
}

}  // namespace fettle::analyze
