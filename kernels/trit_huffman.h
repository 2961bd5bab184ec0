// SPDX-License-Identifier: Apache-2.0
// Huffman codes of bounded length, canonical: known by their lengths alone.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

namespace fettle::kernels {

// The lengths of the codes that take the fewest bits for symbols that occur
// `counts` times, of 1 to most_bits bits each: Larmore and Hirschberg 1990, "A
// fast algorithm for optimal length-limited Huffman codes". 0 for a symbol
// that never occurs; two at least do, and 2^most_bits at most.
std::vector<int> huffman_lengths(
    std::span<const std::int64_t> counts, int most_bits);

// The codes of RFC 1951, section 3.2.2: shorter ones first, of one length in
// the order of symbols. A code's first bit is its lowest here. A symbol
// of length 0 has none. Empty unless the lengths are of most_bits bits at most
// and leave no sequence of bits without code.
std::vector<std::uint32_t> huffman_codes(
    std::span<const int> lengths, int most_bits);

}  // namespace fettle::kernels
