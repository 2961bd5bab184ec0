// SPDX-License-Identifier: Apache-2.0
// How a packed matrix lies in a checkpoint. Weight NAME is stored as the tensor
// NAME.packed, U8 [bytes], which tells all of itself (little endian):
//
//   0  "FPK1"                     16  u32 weights of a group
//   4  u8 kind (PackedKind)       20  u32 bytes of the table
//   5  u8 bits                    24  u32 bytes of the row lengths
//   6  u8 1 where there are zeros 28  u32 bytes of the codes
//   7  u8 0                       32  u64 XXH3 of the first 32 bytes and of
//   8  u32 rows                       the XXH3 of all bytes behind this field
//  12  u32 cols
//
// then scales (bf16 [rows, groups]), zeros ([rows, groups], packed as codes of
// `bits` bits), the table and row lengths of the coded kinds (see
// kernels/trit_code.h), and the codes.
#pragma once

#include <ATen/ATen.h>

#include <cstddef>
#include <cstdint>
#include <span>
#include <string>
#include <string_view>

#include "kernels/packed_matrix.h"

namespace fettle::model {

inline constexpr std::string_view kPackedSuffix = ".packed";
inline constexpr std::int64_t kPackedHeaderBytes = 40;

struct PackedHeader {
  kernels::PackedKind kind = kernels::PackedKind::kInt;
  std::int64_t bits = 0;
  std::int64_t rows = 0;
  std::int64_t cols = 0;
  std::int64_t group = 0;
  bool zeros = false;
  std::int64_t table_bytes = 0;
  std::int64_t lengths_bytes = 0;
  std::int64_t codes_bytes = 0;
  std::uint64_t checksum = 0;

  std::int64_t groups() const;
  std::int64_t scales_bytes() const;
  std::int64_t zeros_bytes() const;
  std::int64_t bytes() const;  // of the whole tensor, header included
};

// Bytes that the matrix takes in memory.
std::int64_t memory_bytes(const PackedHeader& header);

// "int4", "int4 with zeros", "ternary", "ternary-coded": for people.
std::string packed_name(const PackedHeader& header);

// Throws UserError naming `subject` unless `bytes`, the first of a tensor of
// `total`, are a header and all sizes in it agree with each other.
PackedHeader parse_packed_header(
    std::span<const std::byte> bytes,
    std::int64_t total,
    const std::string& subject);

// The tensor to store, U8 [bytes].
at::Tensor to_stored(const kernels::PackedMatrix& matrix);

// The bytes that to_stored gives.
std::int64_t stored_bytes(const kernels::PackedMatrix& matrix);

// The matrix of a stored tensor, whose memory it shares. Throws UserError
// naming `subject` when a byte is damaged or a scale is not finite.
kernels::PackedMatrix from_stored(
    const at::Tensor& stored, const std::string& subject);

}  // namespace fettle::model
