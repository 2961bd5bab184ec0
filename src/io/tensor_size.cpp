// SPDX-License-Identifier: Apache-2.0
#include "io/tensor_size.h"

namespace fettle::io {

std::optional<std::uint64_t> byte_size(
    DType dtype, std::span<const std::int64_t> shape) {
  std::int64_t bytes = 1;
  for (const std::int64_t dimension : shape) {
    if (dimension < 0 || __builtin_mul_overflow(bytes, dimension, &bytes)) {
      return std::nullopt;
    }
  }
  const auto element = static_cast<std::int64_t>(size_of(dtype));
  if (__builtin_mul_overflow(bytes, element, &bytes)) return std::nullopt;
  return static_cast<std::uint64_t>(bytes);
}

}  // namespace fettle::io
