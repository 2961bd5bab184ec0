// SPDX-License-Identifier: Apache-2.0
// The types of GGUF tensors that Fettle writes. A row is cut into blocks, each
// with a scale d of 16 bits and more; where codes of a packed matrix lie in
// whole blocks, one of these types holds their values exactly:
//
//   type    a block       holds of it
//   Q8_0    32 weights    q d, q of 8 signed bits
//   Q4_0    32            (q - 8) d, q of 4 bits
//   Q5_0    32            (q - 16) d, q of 5 bits
//   Q2_K    256           d s q - d' m, q of 2 bits; s and m of 4 bits each
//                         for 16 weights: s = 1, m = zero, d' = d
//   Q3_K    256           d (s - 32) (q - 4), q of 3 bits; s of 6 bits for 16
//                         weights: s = 33
//   Q4_K    256           d s q - d' m, q of 4 bits; s and m of 6 bits for 32
//                         weights: s = 1, m = zero, d' = d
//   TQ2_0   256           (q - 1) d, q of 0 to 2
//   MXFP4   32            E2M1 floats times a power of two, of weights that are
//                         stored so
//
// Layouts stand at the functions that write them. Source: ggml, ggml-common.h.
#pragma once

#include <ATen/ATen.h>

#include <cstddef>
#include <cstdint>
#include <optional>
#include <span>
#include <string_view>

#include "export/codes/code_matrix.h"
#include "model/weights/packed_weight.h"
#include "model/weights/stored_form.h"

namespace fettle::exporter {

// Their numbers in files.
enum class BlockType : std::uint32_t {
  kF32 = 0,
  kF16 = 1,
  kQ4_0 = 2,
  kQ5_0 = 6,
  kQ8_0 = 8,
  kQ2_K = 10,
  kQ3_K = 11,
  kQ4_K = 12,
  kBF16 = 30,
  kTQ2_0 = 35,
  kMXFP4 = 39,
};

std::string_view block_name(BlockType type);
std::int64_t block_weights(BlockType type);
// Of a row of `cols`, which are whole blocks.
std::int64_t row_bytes(BlockType type, std::int64_t cols);
// Number of a file most of whose weights are of this type (llama.cpp's ftype).
std::uint32_t file_type(BlockType type);

// The plain type of a tensor's.
BlockType plain_block(at::ScalarType type);

// What a packed matrix's header tells of its values.
struct Levels {
  std::int64_t low = 0;  // of code - zero
  std::int64_t high = 0;
  std::int64_t code_bits = 0;
  std::int64_t group = 0;  // 0: rows of one group
};
Levels levels_of(const model::PackedHeader& header);

// The smallest type that holds all matrices with rows of `cols` exactly, scales
// permitting.
std::optional<BlockType> exact_type(
    std::span<const Levels> matrices, std::int64_t cols);

// uint8 [rows, row_bytes]. `type` holds the matrix; scales are rounded to 16
// bits.
at::Tensor encode_codes(BlockType type, const CodeMatrix& matrix);

// MXFP4's codes, two in a byte and neighbours, and scales of rows of 32: uint8
// [rows, row_bytes].
at::Tensor encode_mxfp4(const model::StoredForm::BlockBytes& blocks);

// The nearest values that Q8_0 has to fp32 [rows, cols]: uint8 [rows,
// row_bytes].
at::Tensor encode_q8_0(const at::Tensor& values);

// fp32 [rows, cols] of stored bytes, of any type above; shares nothing with
// what writes them.
at::Tensor decode_blocks(
    BlockType type,
    std::span<const std::byte> bytes,
    std::int64_t rows,
    std::int64_t cols);

}  // namespace fettle::exporter
