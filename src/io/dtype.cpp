// SPDX-License-Identifier: Apache-2.0
#include "io/dtype.h"

#include <array>

#include "core/error.h"

namespace fettle::io {
namespace {

struct Row {
  DType dtype;
  std::string_view name;
  std::size_t bytes;
};

constexpr std::array kRows{
    Row{DType::kBool, "BOOL", 1},
    Row{DType::kU8, "U8", 1},
    Row{DType::kI8, "I8", 1},
    Row{DType::kU16, "U16", 2},
    Row{DType::kI16, "I16", 2},
    Row{DType::kU32, "U32", 4},
    Row{DType::kI32, "I32", 4},
    Row{DType::kU64, "U64", 8},
    Row{DType::kI64, "I64", 8},
    Row{DType::kF8E4M3, "F8_E4M3", 1},
    Row{DType::kF8E5M2, "F8_E5M2", 1},
    Row{DType::kF8E8M0, "F8_E8M0", 1},
    Row{DType::kF16, "F16", 2},
    Row{DType::kBF16, "BF16", 2},
    Row{DType::kF32, "F32", 4},
    Row{DType::kF64, "F64", 8},
    Row{DType::kC64, "C64", 8},
};

const Row& row(DType dtype) {
  const auto index = static_cast<std::size_t>(dtype);
  FETTLE_ASSERT(index < kRows.size() && kRows[index].dtype == dtype);
  return kRows[index];
}

}  // namespace

std::size_t size_of(DType dtype) { return row(dtype).bytes; }

std::string_view name_of(DType dtype) { return row(dtype).name; }

std::optional<DType> find_dtype(std::string_view name) {
  for (const Row& candidate : kRows) {
    if (candidate.name == name) return candidate.dtype;
  }
  return std::nullopt;
}

}  // namespace fettle::io
