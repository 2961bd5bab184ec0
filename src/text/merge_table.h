// SPDX-License-Identifier: Apache-2.0
// The merges of a byte-pair model: from two adjacent tokens to their rank and
// the token they become. Open addressing, since this lookup is the whole inner
// loop of encoding.
#pragma once

#include <bit>
#include <cstddef>
#include <cstdint>
#include <vector>

namespace fettle::text {

struct Merge {
  std::uint32_t rank;  // the lower, the earlier it is applied
  std::int32_t token;  // -1 where there is no merge
};

class MergeTable {
 public:
  static constexpr Merge kNone{UINT32_MAX, -1};

  explicit MergeTable(std::size_t expected)
      : slots_(std::bit_ceil(2 * expected + 2)),
        shift_(64 - std::bit_width(slots_.size() - 1)) {}

  // A pair that is set again takes the new rank. At most `expected` pairs.
  void set(std::int32_t left, std::int32_t right, Merge merge) {
    slots_[find_slot(key_of(left, right))] = {key_of(left, right), merge};
  }

  Merge find(std::int32_t left, std::int32_t right) const {
    return slots_[find_slot(key_of(left, right))].merge;
  }

 private:
  struct Slot {
    std::uint64_t key = UINT64_MAX;
    Merge merge = kNone;
  };

  static std::uint64_t key_of(std::int32_t left, std::int32_t right) {
    return static_cast<std::uint64_t>(static_cast<std::uint32_t>(left)) << 32 |
           static_cast<std::uint32_t>(right);
  }

  // The slot that holds `key`, or the empty one where it would go.
  std::size_t find_slot(std::uint64_t key) const {
    std::size_t at =
        static_cast<std::size_t>((key * 0x9e3779b97f4a7c15u) >> shift_);
    while (slots_[at].key != key && slots_[at].key != UINT64_MAX) {
      at = (at + 1) & (slots_.size() - 1);
    }
    return at;
  }

  std::vector<Slot> slots_;
  int shift_;
};

}  // namespace fettle::text
