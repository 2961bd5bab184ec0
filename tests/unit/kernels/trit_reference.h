// SPDX-License-Identifier: Apache-2.0
// A slow decoder of trit_code.h's format, written from its description alone:
// bit by bit, a walk of the tree as text. And seeded trits.
#pragma once

#include <optional>

#include "kernels/trit_code.h"

namespace fettle::kernels::test {

inline constexpr PackedKind kWords = PackedKind::kTernaryWords;
inline constexpr PackedKind kHuffman = PackedKind::kTernaryHuffman;

at::Tensor tensor_of_bytes(const std::vector<std::uint8_t>& bytes);

struct TritOdds {
  double zero, plus;  // the rest is −1
};

// int8 [rows, cols].
at::Tensor seeded_trits(
    std::int64_t rows, std::int64_t cols, TritOdds odds, std::int64_t seed);

// Bits a trit takes at least when each is drawn by itself.
double trit_entropy(TritOdds odds);

// What a file holds of a coded matrix.
struct StoredTrits {
  PackedKind kind;
  std::int64_t rows, cols;
  std::vector<std::uint8_t> codes, row_lengths, table;
};

StoredTrits stored_trits(const TritCode& code, std::int64_t cols);

// The matrix as Fettle reads it, with `group` weights a scale of 1. Throws
// UserError where row lengths or table are damaged.
PackedMatrix loaded_trits(const StoredTrits& stored, std::int64_t group = 128);

// int8 [rows, cols], or nothing when anything is damaged.
std::optional<at::Tensor> reference_trits(const StoredTrits& stored);

}  // namespace fettle::kernels::test
