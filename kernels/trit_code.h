// SPDX-License-Identifier: Apache-2.0
// Rows of trits (0, +1, −1) in fewer bits than five trits a byte take: a row is
// cut into words, and each word is written as a code. Words are long where
// zeros are many. A row can be read without the others.
//
// The words are the leaves of a tree. A row is read from the root on: its trits
// lead from node to child, and where there is none the word ends, and the next
// trit begins at the root again. A node has three children, of the trits 0, +1
// and −1 in this order, or none. Words are numbered from 0 in the order of a
// walk that visits a node before its children and these in order. A word has 1
// to 224 trits, and at most 24 from its first to its last that is not 0. What
// the last word of a row has behind the row's end is dropped.
//
//   kTernaryWords    At most 1024 words. A word's code is its number in ten
//                    bits, the lowest first.
//   kTernaryHuffman  At most 256 words, the code being canonical: codes of 1 to
//                    10 bits, shorter ones first, of one length in the order of
//                    their words, as RFC 1951 3.2.2 counts them, and every
//                    sequence of bits has one. A code's highest bit comes
//                    first. Words that don't occur have no code.
//
// Bits fill a byte from its lowest. A row's codes begin at a byte, and a row
// has no more bytes than its codes need; bits left over of the last mean
// nothing.
//
// In a file the table is, as bits: for the nodes in the order of the walk, 1
// for one that has children and 0 for a word; then, of kTernaryHuffman, four
// bits for each word, the length of its code or 0, the lowest first. Zeros fill
// up the last byte. In memory it is what trit_table.h describes.
//
// In a file the lengths of rows are: the shortest row's bytes in four bytes,
// the lowest first; in one byte a number of bits, 0 to 32; then for each row,
// in so many bits, the bytes that it has more. Zeros fill up the last byte.
#pragma once

#include <ATen/ATen.h>

#include <cstdint>

#include "kernels/packed_matrix.h"

namespace fettle::kernels {

struct TritCode {
  PackedKind kind = PackedKind::kTernaryHuffman;
  at::Tensor codes = {};      // uint8 [bytes]
  at::Tensor row_begin = {};  // int64 [rows + 1]
  at::Tensor table = {};      // uint8, as in a file
};

// `trits`: int8 [rows, cols] on the CPU; another value than -1, 0, 1 is an
// InternalError. The table is made for the frequencies of these trits.
TritCode encode_trits(PackedKind kind, const at::Tensor& trits);

// Bytes in a file: codes, lengths of rows, and table.
std::int64_t stored_bytes(const TritCode& code);

// PackedMatrix::table of a table from a file. Throws UserError when it is
// damaged.
at::Tensor prepare_trit_table(PackedKind kind, const at::Tensor& stored);

// Between PackedMatrix::row_begin and the lengths of rows in a file. Throws
// UserError when these are not those of `rows` rows in `codes_bytes` bytes.
at::Tensor encode_row_lengths(const at::Tensor& row_begin);
at::Tensor decode_row_lengths(
    const at::Tensor& stored, std::int64_t rows, std::int64_t codes_bytes);

// check_packed's part for row_begin and table of the coded kinds: InternalError
// unless types and sizes fit. On the CPU it throws UserError too where the
// table's values would lead out of bounds.
void check_trit_code(const PackedMatrix& matrix);

// Trits of rows [first, first + n) as int8 [n, cols]. On the CPU. Throws
// UserError that names the first damaged row.
at::Tensor decode_trits(
    const PackedMatrix& matrix, std::int64_t first, std::int64_t n);

// Throws the UserError of the first damaged row of [first, first + n).
void check_trit_rows(
    const PackedMatrix& matrix, std::int64_t first, std::int64_t n);

}  // namespace fettle::kernels
