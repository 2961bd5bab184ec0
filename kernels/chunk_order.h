// SPDX-License-Identifier: Apache-2.0
// Packed sequences as chunks of tokens, for batched products: first the first
// chunk of every sequence, then the second of those that have one, and so on,
// so that what a chunk's state needs lies in the step before it.
#pragma once

#include <ATen/ATen.h>

#include <cstdint>
#include <vector>

namespace fettle::kernels {

class ChunkOrder {
 public:
  // Tensors lie on `device`. Empty sequences have no chunk.
  ChunkOrder(
      const std::vector<std::int64_t>& starts,
      std::int64_t chunk,
      at::Device device);

  // Chunks [first(step), first(step + 1)) are those of a step, one for each of
  // the sequences that have so many; longer ones come first.
  std::int64_t steps() const {
    return static_cast<std::int64_t>(first_.size()) - 1;
  }
  std::int64_t first(std::int64_t step) const { return first_[step]; }
  std::int64_t count(std::int64_t step) const {
    return first_[step + 1] - first_[step];
  }
  // [sequences of a chunk or more] int64: their numbers in `starts`.
  const at::Tensor& sequences() const { return sequences_; }

  // [N, ...] to [chunks, chunk, ...], filled up with zeros.
  at::Tensor gather(const at::Tensor& tokens) const;
  // The reverse of gather().
  at::Tensor scatter(const at::Tensor& chunks) const;

 private:
  std::int64_t chunk_;
  std::vector<std::int64_t> first_;
  at::Tensor token_;  // [chunks · chunk], N for what fills up
  at::Tensor slot_;   // [N]
  at::Tensor sequences_;
};

}  // namespace fettle::kernels
