// SPDX-License-Identifier: Apache-2.0
#include "model/layers/token_batch.h"

#include <fmt/format.h>

#include "core/error.h"

namespace fettle::model {
namespace {

std::vector<std::int64_t> document_bounds(const Sequence& sequence) {
  std::vector<std::int64_t> bounds = sequence.document_starts;
  if (bounds.empty()) bounds.push_back(0);
  bounds.push_back(static_cast<std::int64_t>(sequence.ids.size()));
  FETTLE_ASSERT(bounds.front() == 0);
  return bounds;
}

void check_ids(const Sequence& sequence, std::int64_t vocab_size) {
  FETTLE_ASSERT(sequence.ids.size() == sequence.labels.size());
  for (const std::int32_t id : sequence.ids) {
    if (id < 0 || id >= vocab_size) {
      throw UserError(
          "data",
          "token ids",
          fmt::format(
              "id {} lies outside the model's vocabulary of {}; is this data "
              "tokenized for another model?",
              id,
              vocab_size));
    }
  }
}

}  // namespace

TokenBatch TokenBatch::to(at::Device device) const {
  TokenBatch moved = *this;
  moved.ids = ids.to(device, /*non_blocking=*/true);
  moved.targets = targets.to(device, /*non_blocking=*/true);
  moved.positions = positions.to(device, /*non_blocking=*/true);
  return moved;
}

TokenBatch pack(
    const std::vector<Sequence>& sequences, std::int64_t vocab_size) {
  std::int64_t total = 0;
  for (const Sequence& sequence : sequences) {
    check_ids(sequence, vocab_size);
    total += static_cast<std::int64_t>(sequence.ids.size());
  }
  TokenBatch packed;
  packed.ids = at::empty({total}, at::kLong);
  packed.targets = at::full({total}, -100, at::kLong);
  packed.positions = at::empty({total}, at::kLong);
  packed.starts = {0};
  auto* ids = packed.ids.data_ptr<std::int64_t>();
  auto* targets = packed.targets.data_ptr<std::int64_t>();
  auto* positions = packed.positions.data_ptr<std::int64_t>();

  std::int64_t row = 0;
  for (const Sequence& sequence : sequences) {
    const auto bounds = document_bounds(sequence);
    for (std::size_t d = 0; d + 1 < bounds.size(); ++d) {
      if (bounds[d] == bounds[d + 1]) continue;
      for (std::int64_t i = bounds[d]; i < bounds[d + 1]; ++i, ++row) {
        ids[row] = sequence.ids[i];
        positions[row] = i - bounds[d];
        if (i + 1 < bounds[d + 1]) targets[row] = sequence.labels[i + 1];
      }
      packed.starts.push_back(row);
    }
  }
  return packed;
}

}  // namespace fettle::model
