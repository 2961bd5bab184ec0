// SPDX-License-Identifier: Apache-2.0
// The tree whose leaves are a code's words (trit_code.h), grown for the
// frequencies of trits: the likeliest leaf gets children until there are words
// enough (Tunstall 1967, "Synthesis of noiseless compression codes").
#pragma once

#include <array>
#include <cstdint>
#include <vector>

#include "kernels/trit_bits.h"

namespace fettle::kernels {

// Nodes with children, in the order of a walk that visits a node before its
// children and these in order; 0 is the root.
struct TritTree {
  // The next for a trit's two lowest bits (0: 0, 1: +1, 3: −1): a node, or a
  // word's number as ~word. 2 is no trit.
  std::vector<std::array<std::int32_t, 4>> next;
  // The likeliest word below a node: what a row that ends there is filled up
  // to.
  std::vector<std::int32_t> likeliest;
  std::int64_t words = 0;
};

// The places of the children in `next`, in their order.
inline constexpr std::array<std::size_t, 3> kTritChildren = {0, 1, 3};

// At least three words, at most `most_words`. `counts` of the trits 0, +1, −1;
// all 0 counts as all alike.
TritTree grow_trit_tree(
    const std::array<std::int64_t, 3>& counts, std::int64_t most_words);

// A bit for every node and leaf in the order of the walk.
void write_trit_tree(const TritTree& tree, BitWriter& to);

// The words of a written tree as trit_table.h has them, in the order of their
// numbers. Empty where there are more than `most_words`, one is too long for
// such a table, or the bits ran out.
std::vector<std::uint64_t> read_trit_words(
    BitReader& from, std::int64_t most_words);

}  // namespace fettle::kernels
