// SPDX-License-Identifier: Apache-2.0
#include "analyze/calibration.h"

#include <algorithm>
#include <iterator>

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
    const std::vector<model::Sequence> sequences(
        data.begin() + static_cast<std::ptrdiff_t>(begin),
        data.begin() + static_cast<std::ptrdiff_t>(end));
    auto parts = sweep::micro_batches(
        sequences, options.micro_batch_tokens, options.vocab_size);
    chunk.batches.push_back(
        {static_cast<std::int64_t>(parts.size()), sweep::loss_tokens(parts)});
    for (const model::TokenBatch& part : parts) {
      chunk.tokens += part.tokens();
    }
    std::ranges::move(parts, std::back_inserter(chunk.micro_batches));
  }
  return chunk;
}

}  // namespace fettle::analyze
