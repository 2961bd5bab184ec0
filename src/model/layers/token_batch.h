// SPDX-License-Identifier: Apache-2.0
// A micro-batch: sequences laid end to end without padding. Token-wise layers
// see one [N, H] matrix; attention walks the sequences.
#pragma once

#include <ATen/ATen.h>

#include <cstdint>
#include <vector>

namespace fettle::model {

struct TokenBatch {
  at::Tensor ids;                    // [N] int64
  at::Tensor targets;                // [N] int64: the token that position i
                                     // must predict, or -100
  at::Tensor positions;              // [N] int64, from 0 in each sequence
  std::vector<std::int64_t> starts;  // [B + 1] token offsets of the sequences

  std::int64_t tokens() const { return starts.back(); }
  std::int64_t sequences() const {
    return static_cast<std::int64_t>(starts.size()) - 1;
  }
  TokenBatch to(at::Device device) const;
};

// One sequence of ids with labels (equal to the id where it counts for the
// loss, else -100), not shifted.
struct Sequence {
  std::vector<std::int32_t> ids;
  std::vector<std::int32_t> labels;
  // Offsets where documents begin; attention does not cross them. Empty: one
  // document.
  std::vector<std::int64_t> document_starts;
};

// Packs sequences; targets are the labels shifted by one inside each document.
// Throws UserError when an id lies outside [0, vocab_size).
TokenBatch pack(
    const std::vector<Sequence>& sequences, std::int64_t vocab_size);

}  // namespace fettle::model
