// SPDX-License-Identifier: Apache-2.0
// What a mixer does to each sequence of a batch behind the sequence's own
// state.
#pragma once

#include <ATen/ATen.h>

#include <cstddef>
#include <cstdint>
#include <vector>

#include "model/layers/layer_context.h"

namespace fettle::model {

// A sequence's tokens in the batch.
struct SequenceRows {
  std::int64_t first;
  std::int64_t count;

  at::Tensor of(const at::Tensor& all) const {
    return all.narrow(0, first, count);
  }
};

inline SequenceRows rows_of_sequence(
    const LayerContext& context, std::size_t sequence) {
  const auto& starts = context.batch.tokens.starts;
  return {starts[sequence], starts[sequence + 1] - starts[sequence]};
}

// Calls pass(state, rows) for every sequence, which returns what becomes of its
// rows; all of them together, in their order.
template <class Pass>
at::Tensor for_each_state(const LayerContext& context, const Pass& pass) {
  std::vector<at::Tensor> outs;
  for (std::size_t s = 0; s < context.states.size(); ++s) {
    outs.push_back(pass(*context.states[s], rows_of_sequence(context, s)));
  }
  return outs.size() == 1 ? outs[0] : at::cat(outs, 0);
}

}  // namespace fettle::model
