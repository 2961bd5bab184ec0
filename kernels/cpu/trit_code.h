// SPDX-License-Identifier: Apache-2.0
// The CPU code of trit_code.h: rows to words, words to codes, and back.
#pragma once

#include <array>
#include <cstdint>
#include <span>
#include <vector>

#include "kernels/packed_args.h"
#include "kernels/trit_tree.h"

namespace fettle::kernels::cpu {

struct TritRows {
  const std::int8_t* trits;  // [rows, cols]
  std::int64_t rows, cols;
};

// How many are 0, +1 and −1. Others are not counted.
std::array<std::int64_t, 3> count_trits(const TritRows& rows);

// The words of all rows, one row behind the other.
struct TritWords {
  std::vector<std::uint16_t> words;
  std::vector<std::int64_t> row_begin;  // [rows + 1], in words
};

TritWords parse_trits(const TritRows& rows, const TritTree& tree);

// The code of each word, and its length.
struct TritCodes {
  std::vector<std::uint32_t> codes;  // the first bit is the lowest
  std::vector<int> bits;
};

// Where rows begin in their bytes: [rows + 1].
std::vector<std::int64_t> coded_row_begin(
    const TritWords& rows, const TritCodes& codes);

void write_coded_rows(
    const TritWords& rows,
    const TritCodes& codes,
    std::span<const std::int64_t> row_begin,
    std::uint8_t* to);

// Trits of rows [first, first + n) to `out` [n, cols], or nowhere where it is
// null. Returns the first damaged row, or -1.
std::int64_t decode_trits(
    const PackedArgs& matrix,
    std::int64_t first,
    std::int64_t n,
    std::int8_t* out);

}  // namespace fettle::kernels::cpu
