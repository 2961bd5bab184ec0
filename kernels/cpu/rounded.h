// SPDX-License-Identifier: Apache-2.0
// How rows of x lie once they are rounded to int8, and products with them.
// Packed bytes of a matrix's row are words of four bytes; byte j of a word
// holds `planes` neighbouring codes. A word's codes are taken plane by plane,
// and so lie the values of x: value 4 P w + P j + p at 4 P w + 4 p + j.
#pragma once

#include <cstdint>
#include <span>

#include "kernels/cpu/share.h"
#include "kernels/packed_args.h"

namespace fettle::kernels {

struct RoundedShape {
  std::int64_t cols;
  std::int64_t planes;  // P: 4 of two bits, 2 of four bits, else 1
  bool trits;           // five a byte, taken apart to five words of codes
  std::int64_t words;   // of a row, as they meet x
  std::int64_t block;   // columns with one scale of x: 16 n, or all
  std::int64_t blocks;

  // The words that hold columns of block b, and where their values of x begin.
  // Blocks share a word of trits: values of other blocks' columns are 0 there.
  std::int64_t first_word(std::int64_t b) const {
    return trits ? b * block / kTritWord * 5 : b * block / (4 * planes);
  }
  std::int64_t end_word(std::int64_t b) const {
    if (!trits) return b + 1 < blocks ? first_word(b + 1) : words;
    const std::int64_t end = b + 1 < blocks ? (b + 1) * block : cols;
    return (end + kTritWord - 1) / kTritWord * 5;
  }
  std::int64_t first_code(std::int64_t b) const {
    return trits ? b * trit_codes() : b * block;
  }
  // Values of x of a row.
  std::int64_t row_codes() const {
    return trits ? blocks * trit_codes() : words * 4 * planes;
  }
  bool operator==(const RoundedShape&) const = default;

  // Trits of four bytes.
  static constexpr std::int64_t kTritWord = 20;

 private:
  std::int64_t trit_codes() const {
    return (block / kTritWord + 2) * kTritWord;
  }
};

inline constexpr std::int64_t kMostOfABlock = 256;

// Columns of x that share a scale beside groups of the matrix; 0: such groups
// have no integer products.
std::int64_t rounded_block(std::int64_t group, std::int64_t cols);
RoundedShape rounded_shape(const PackedArgs& matrix);

// n rows of x: value = code x scale. A block with a NaN or an infinity has
// codes of 0 and the scale NaN.
struct RoundedRows {
  RoundedShape shape;
  std::int8_t* codes;  // [n, row_codes], zeros behind cols
  float* scales;       // [n, blocks]
  std::int32_t* sums;  // [n, blocks], of codes

  // Those from row `row` on.
  RoundedRows from(std::int64_t row) const {
    return {
        shape,
        codes + row * shape.row_codes(),
        scales + row * shape.blocks,
        sums + row * shape.blocks};
  }
};

struct RoundingArgs {
  const float* x;  // [n, cols]
  std::int64_t x_stride, n;
  RoundedRows rows;
};

struct RoundedProductArgs {
  PackedArgs matrix;
  RoundedRows x;
  std::int64_t n;
  float* y;  // [n, rows]
  std::int64_t y_stride;
};

namespace cpu {

void round_rows(const RoundingArgs& args);

// False where a code is damaged. Integer sums are exact and scaled in one order
// of blocks: each value has its bits whatever n and the processor are.
bool rounded_products(const RoundedProductArgs* products, std::int64_t count);
// One thread's part of them, where threads are at hand already.
bool share_of_rounded_products(
    std::span<const RoundedProductArgs> products, const Share& share);

}  // namespace cpu
}  // namespace fettle::kernels
