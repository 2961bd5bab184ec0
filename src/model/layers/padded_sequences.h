// SPDX-License-Identifier: Apache-2.0
// Sequences of unequal lengths as a few rectangles, so that a card attends to
// many at once: those of one power of two go together, filled up behind their
// ends, where no token of theirs looks.
#pragma once

#include <ATen/ATen.h>

#include <cstdint>
#include <vector>

namespace fettle::model {

// Sequences of `length` rows each, some of them filling.
struct Rectangle {
  std::int64_t row, sequences, length;
};

class PaddedSequences {
 public:
  // starts: [S + 1], of sequences packed into rows [0, starts.back()).
  PaddedSequences(const std::vector<std::int64_t>& starts, at::Device device);

  const std::vector<Rectangle>& rectangles() const { return rectangles_; }

  // Rows [N, ..] of packed tokens to the rectangles' rows [P, ..], after each
  // other, and back. Filling holds its sequence's last token; its gradient is
  // left aside, being zero. Differentiable.
  at::Tensor pad(const at::Tensor& packed) const;
  at::Tensor unpad(const at::Tensor& padded) const;

 private:
  std::vector<Rectangle> rectangles_;
  at::Tensor token_;  // [P] int64, -1 for filling
  at::Tensor from_;   // [P] int64, the same with a token for filling
  at::Tensor row_;    // [N] int64, where a token is
};

}  // namespace fettle::model
