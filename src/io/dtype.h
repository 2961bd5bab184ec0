// SPDX-License-Identifier: Apache-2.0
// Element types of stored tensors, by their safetensors names. Types narrower
// than a byte (F4, F6) are not among them.
#pragma once

#include <cstddef>
#include <optional>
#include <string_view>

namespace fettle::io {

enum class DType {
  kBool,
  kU8,
  kI8,
  kU16,
  kI16,
  kU32,
  kI32,
  kU64,
  kI64,
  kF8E4M3,
  kF8E5M2,
  kF8E8M0,
  kF16,
  kBF16,
  kF32,
  kF64,
  kC64,
};

// Bytes of one element.
std::size_t size_of(DType dtype);

// "BF16", "F8_E4M3", …: the name in a safetensors header.
std::string_view name_of(DType dtype);

// The type of that name; nothing when Fettle knows none.
std::optional<DType> find_dtype(std::string_view name);

}  // namespace fettle::io
