// SPDX-License-Identifier: Apache-2.0
// Sizes of tensors, with every overflow noticed.
#pragma once

#include <cstdint>
#include <optional>
#include <span>

#include "io/dtype.h"

namespace fettle::io {

// Bytes of a tensor; nothing when a dimension is negative, or when the product
// taken from left to right exceeds 2^63 - 1 (even if a later dimension is 0).
std::optional<std::uint64_t> byte_size(
    DType dtype, std::span<const std::int64_t> shape);

}  // namespace fettle::io
