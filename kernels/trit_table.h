// SPDX-License-Identifier: Apache-2.0
// A code's table as decoders use it, what PackedMatrix::table holds for the
// coded kinds: numbers of 8 bytes that are words, each found by the code of
// kTernaryWords or by the number that a Huffman code stands for.
//
//   bits  0–23: its trits that are +1, from the first on that is not 0
//   bits 24–47: its trits that are −1, in the same places
//   bits 48–55: the zeros ahead of them (0 where all trits are)
//   bits 56–63: how many trits it has; 0: no such word
//
// kTernaryWords has 1024 of them. kTernaryHuffman has 256, and then for every
// value of a row's next 10 bits two bytes: the bits that belong to its code,
// and the word's number.
#pragma once

#include <cstdint>

namespace fettle::kernels {

inline constexpr int kTritCodeBits = 10;  // of every code, or the longest
inline constexpr int kTritCodeValues = 1 << kTritCodeBits;
inline constexpr int kTritCodeWords = 1024;
inline constexpr int kTritHuffmanWords = 256;

// From the first trit to the last that is not 0, and of all.
inline constexpr int kMostTritSpan = 24;
inline constexpr int kMostWordTrits = 224;

// A word's 24 trits and 8 zeros may begin at its last trit.
inline constexpr std::int64_t kBehindTrits = kMostWordTrits + 32;

inline constexpr std::int64_t kTritWordBytes = 8;
inline constexpr std::int64_t kTritWordsBytes = kTritCodeWords * kTritWordBytes;
inline constexpr std::int64_t kTritHuffmanBytes =
    kTritHuffmanWords * kTritWordBytes + 2 * kTritCodeValues;

}  // namespace fettle::kernels
