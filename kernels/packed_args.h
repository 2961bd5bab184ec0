// SPDX-License-Identifier: Apache-2.0
// What packed_matrix.cpp hands to the CPU and GPU code: sizes and raw pointers,
// checked.
#pragma once

#include <cstdint>

#include "kernels/args.h"

namespace fettle::kernels {

enum class PackedKind : std::uint8_t {
  // Codes of 2, 3, 4 or 8 bits. Eight neighbours of a row take `bits` bytes,
  // the first in the lowest bits; a row's last eight are filled up with 0.
  kInt = 0,
  // Five trits a byte: the sum of (trit + 1) 3^i, the first having i = 0; a
  // row's last five are filled up with trit 0.
  kTernary = 1,
  // Trits by ten-bit words of a dictionary, and by Huffman codes: trit_code.h.
  kTernaryWords = 2,
  kTernaryHuffman = 3,
};

struct PackedArgs {
  PackedKind kind;
  std::int32_t bits;  // of kInt
  std::int64_t rows, cols, group, groups;
  const std::uint8_t* codes;
  std::int64_t codes_bytes;
  std::int64_t row_bytes;       // of kInt and kTernary
  const std::uint16_t* scales;  // [rows, groups], bits of bfloat16
  const std::uint8_t* zeros;    // [rows, groups], or null
  // For the coded kinds.
  const std::int64_t* row_begin;  // [rows + 1]
  const std::uint8_t* table;
  std::int64_t table_bytes;
};

struct UnpackRowsArgs {
  DType dtype;
  PackedArgs matrix;
  std::int64_t first, rows;  // of the matrix
  void* out;                 // [rows, cols]
  std::int64_t stride;       // of a row of out, in values
};

struct PackedProductArgs {
  PackedArgs matrix;
  std::int64_t n;
  const void* x;  // [n, cols], rows x_stride values apart
  void* y;        // [n, rows], rows y_stride values apart
  std::int64_t x_stride, y_stride;
};

struct PackedProductsArgs {
  DType dtype;
  const PackedProductArgs* products;
  std::int64_t count;
};

struct PackCodesArgs {
  PackedKind kind;
  std::int32_t bits;
  std::int64_t rows, cols, row_bytes;
  const std::uint8_t* codes;  // [rows, cols]
  std::uint8_t* packed;       // [rows, row_bytes]
};

}  // namespace fettle::kernels
