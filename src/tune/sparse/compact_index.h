// SPDX-License-Identifier: Apache-2.0
// An ascending set of numbers, such as those of chosen weights, in hardly more
// bits than its information: log2(1/f) + 1.5 a number where a share f of all
// was chosen without order, and less where the choice has clusters.
//
// The gap before each number, less one, is written in a Rice code: gap >> k
// zeros and a one, then the k lowest bits. Each run of 256 gaps has the k that
// makes it shortest; with k = 0 it is a bitmap, as dense choices want. A gap of
// 24 zeros or more, as between clusters, follows 24 zeros as it is: its number
// of bits in six, then itself.
// Source: Rice and Plaunt, "Adaptive Variable-Length Coding for Efficient
// Compression of Spacecraft Television Data", 1971.
#pragma once

#include <ATen/ATen.h>

#include <cstdint>
#include <string>

namespace fettle::tune {

class CompactIndex {
 public:
  CompactIndex() = default;  // no numbers
  // index: [n] int64 on the CPU, ascending from 0 on.
  explicit CompactIndex(const at::Tensor& index);

  // What stored() gave, whose storage it shares. Throws UserError about `name`
  // unless it is a set of numbers below `limit`.
  static CompactIndex from_stored(
      const at::Tensor& stored, const std::string& name, std::int64_t limit);
  // [bytes] uint8: the number of numbers (8 bytes, little endian), for each run
  // 6 bits with its k and its codes, from each byte's lowest bit on, and 8
  // bytes of 0, so that words can be read everywhere.
  const at::Tensor& stored() const { return stored_; }

  std::int64_t size() const { return size_; }
  std::int64_t bytes() const { return stored_.numel(); }
  at::Tensor decode() const;  // [n] int64

 private:
  at::Tensor stored_ = at::zeros({16}, at::kByte);
  std::int64_t size_ = 0;
};

}  // namespace fettle::tune
